"""What `marway doctor --cluster` looks at, through kubectl; nothing is changed in the cluster."""

from marway_ops.cluster.examine import examine_cluster
from marway_ops.cluster.kubectl import NAMESPACE, Kubectl

__all__ = ["NAMESPACE", "Kubectl", "examine_cluster"]

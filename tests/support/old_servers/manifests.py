"""What teams keep in YAML beside their models: for KServe, and for ModelMesh."""

from __future__ import annotations

INFERENCE_SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: reviews
  namespace: shop
spec:
  predictor:
    minReplicas: 2
    maxReplicas: 4
    timeout: 30
    model:
      modelFormat:
        name: pytorch
      storageUri: file://STORE
      env:
        - name: TS_SERVICE_ENVELOPE
          value: kserve
      resources:
        limits: {cpu: "1", memory: 2Gi}
status:
  url: http://reviews.shop.example.com
---
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: shop-torchserve
  namespace: shop
spec:
  supportedModelFormats:
    - name: pytorch
      version: "1"
  containers:
    - name: kserve-container
      image: pytorch/torchserve-kfs:0.12.0
      args:
        - torchserve
        - --start
        - --model-store=/mnt/models/model-store
        - --ts-config=/mnt/models/config/config.properties
"""
PREDICTOR = """\
apiVersion: serving.kserve.io/v1alpha1
kind: Predictor
metadata:
  name: reviews
  namespace: shop
spec:
  modelType:
    name: pytorch-mar
  path: reviews/sentiment.mar
  storage:
    s3:
      secretKey: shop
      bucket: models
  runtime:
    name: torchserve-0.x
"""
STORAGE_CONFIG = """\
apiVersion: v1
kind: Secret
metadata:
  name: storage-config
  namespace: shop
stringData:
  shop: |
    {"type": "s3", "access_key_id": "shop", "secret_access_key": "not-a-secret", "endpoint_url": "http://minio:9000",
     "default_bucket": "models", "region": "us-east-1"}
"""

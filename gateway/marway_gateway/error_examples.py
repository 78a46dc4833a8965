"""An example of each error that a route can answer with, for the OpenAPI documents."""

from __future__ import annotations

from typing import Final

from marway import errors
from marway.errors import MarwayError
from marway.wire.comparison import Comparison, FieldChange

__all__ = ["ERROR_EXAMPLES"]

ERROR_EXAMPLES: Final[tuple[MarwayError, ...]] = (
    errors.AnswersDiffer(
        'intent 1.1 gave 1 of its 6 golden answers otherwise on pod pod-0: example 2: at label: "timer" was expected, '
        '"alarm" came; PROD stays at 1.0',
        model="intent",
        version="1.1",
    ),
    errors.ArchiveCorrupt("pod pod-0: the registry's archive 4c31ac6ef5d2… has other bytes (f3b1…)"),
    errors.BodyTooLarge("the body has 104857600 bytes; this gateway accepts at most 67108864 bytes"),
    errors.Conflict("pod pod-0: this pod is stopping, which cannot be taken back: its successor takes requests"),
    errors.ContractBroken(
        'intent 1.1 breaks what consumers rely on: search (contract alarm: label: "alarm" was expected, "timer" came); '
        "PROD stays at 1.0; agree with them, or, if that is meant, move it with --force",
        model="intent",
        version="1.1",
    ),
    errors.DeadlineExceeded("the request's deadline of 0.5 s passed: pod a had not answered", model="intent"),
    errors.ForeignOrigin(
        "pages of 'https://app.example.com' may not send requests to this port: if they should, add the host to "
        "admin_allowed_hosts (MARWAY_GATEWAY_ADMIN_ALLOWED_HOSTS)"
    ),
    errors.InvalidInput("there is no serving setting 'batch': there are cache, idle_unload_s, load_timeout_s"),
    errors.InvalidReference("'in tent' cannot be a model id: use 1 to 63 letters, digits, '.', '_' or '-'"),
    errors.InvalidRequest("X-Request-Timeout-Ms is 'soon': give a whole number of milliseconds, 1 or more"),
    errors.LabelNotFound("model 'intent' has no label STG: its labels are PROD → 1.0", model="intent"),
    errors.LabelProtected(
        "intent PROD is protected, and 1.1 may not take it yet; missing: (1) 1 of 2 approvals (bo@desk): others than "
        "ana@laptop run `marway approve intent 1.1 --label PROD`; PROD stays at 1.0",
        model="intent",
        version="1.1",
    ),
    errors.LoadFailed(
        "pod pod-0: intent 1.1 cannot be loaded: FileNotFoundError: weights.pt; PROD stays at 1.0", model="intent"
    ),
    errors.MarwayError("something went wrong in the gateway; its log has it under request 4bf92f35"),
    errors.Misdirected(
        "this port is not called 'admin.example.com': if that is a name of it, add the name to admin_allowed_hosts "
        "(MARWAY_GATEWAY_ADMIN_ALLOWED_HOSTS)"
    ),
    errors.ModelError("KeyError: 'text'", model="intent", version="1.0"),
    errors.ModelNotFound("there is no model 'itent': the registry has digits, intent", model="itent"),
    errors.NoPodAvailable("no pod can take intent 1.0 now: pod a refused the connection", model="intent"),
    errors.OutcomeUnknown("the write of models/intent/state.json got no reply and cannot be read back"),
    errors.Overloaded("64 requests wait for intent 1.0 already", model="intent", version="1.0"),
    errors.PodNotFound("there is no pod 'pod-9': there are pod-0, pod-1"),
    errors.RolloutNotFound(
        "there was no rollout of intent to PROD: `marway rollout start intent VERSION --label PROD` begins one",
        model="intent",
    ),
    errors.RegistryUnavailable("the registry file:///registry does not answer"),
    errors.ReleaseRefused(
        "intent 1.1 may not take the place of 1.0: its answers have other fields or types: score is now confidence; "
        "PROD stays at 1.0",
        comparison=Comparison(
            version="1.1",
            base="1.0",
            pod="pod-0",
            inputs_of="1.0",
            inputs=6,
            compared=6,
            fields=(FieldChange(field="score", change="renamed", before="number", after="number", to="confidence"),),
            refused=("its answers have other fields or types: score is now confidence",),
        ),
        model="intent",
        version="1.1",
    ),
    errors.SequenceNotFound(
        "the sequence 'call-17' of speech 1.0 is not there: no request of it came for 60 s (sequenceMaxIdleMSec); "
        "begin it anew",
        model="speech",
        version="1.0",
    ),
    errors.StateConflict("intent PROD is at 1.1, not at 1.0: nothing changed", model="intent"),
    errors.Unauthenticated("this needs a token: send the header `Authorization: Bearer TOKEN`"),
    errors.Unavailable("the feedback was not kept, send it again: the store s3://observations does not answer"),
    errors.Unimplemented("the model has no explanations: its handler does not look at the header `explain`"),
    errors.UnsupportedMedia("the body's Content-Encoding 'br' is not known here: send gzip, deflate or none"),
    errors.VersionNotFound("model 'intent' has no version '9': it has 1.0, 1.1", model="intent", version="9"),
)

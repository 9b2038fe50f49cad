"""Tags of runs by which the laboratory finds and judges them."""

KIND, STUDY, KEY = "mhiflab.kind", "mhiflab.study", "mhiflab.run_key"
"""`study` or `trial`; the study's name; the run key."""

PARENT = "mlflow.parentRunId"
"""Run that MLflow's UI shows it under."""

CASE, LABEL, SEED = "mhiflab.case", "mhiflab.label", "mhiflab.seed"
FINGERPRINT, SPEC_HASH = "mhiflab.data_fingerprint", "mhiflab.spec_hash"
ERROR, REFUSED = "mhiflab.error", "mhiflab.refused"

NOTE, TESTED, ARCHIVED = "mlflow.note.content", "mhiflab.tested", "mhiflab.archived"
"""Its description in Markdown; `false` if it is finished but was not tested yet; `true` if it was
imported from an archive."""

SEARCH, STOPPED = "mhiflab.search", "mhiflab.stopped_epoch"
"""`mhiflab.search.<hash>.<index>` holds a suggestion's values; the other one holds the epoch after
which a search stopped it."""

DEVICE = "mhiflab.device"
"""Kind of device and process that it ran on, such as `cpu/workers`."""

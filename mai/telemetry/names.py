"""The names that only telemetry writes; what calls write is in `mai.values.names` and `mai.layers.names`."""

VALUE = {"input": "input.value", "output": "output.value"}
MIME_TYPE = {"input": "input.mime_type", "output": "output.mime_type"}
WORKFLOW_DURATION = "gen_ai.workflow.duration"

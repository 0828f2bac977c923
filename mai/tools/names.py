"""The attribute names that tools write into spans and handles.

Source:
    OpenTelemetry semantic conventions for generative AI, ``execute_tool`` span; OpenInference, ``span.kind``.
"""

OPERATION = "gen_ai.operation.name"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL_ID = "gen_ai.tool.call.id"
APPROVAL = "mai.tool.approval"
OPENINFERENCE_KIND = "openinference.span.kind"

"""Every name of an attribute that is written into a span or a handle, in one table: who renames one changes this file.

Source:
    OpenTelemetry semantic conventions for generative AI (in development: ``gen_ai.*``) and for code, errors and servers
    (stable); OpenInference, for ``openinference.span.kind``, ``input.*`` and ``output.*``; ``mai.*`` are our own.
"""

# calls
STEP_ID = "mai.step.id"
RUN_ID = "mai.run.id"
RUN_SEGMENT = "mai.run.segment"
REPLAYED = "mai.replayed"
REPLAY_STEPS = "mai.replay.steps"
OUTCOME = "mai.outcome"
INPUT_SIZE = "mai.input.size"
OUTPUT_SIZE = "mai.output.size"
RETRY_ATTEMPT = "mai.retry.attempt"
RETRY_DELAY = "mai.retry.delay"
RETRY_COUNT = "mai.retry.count"
FALLBACK_INDEX = "mai.fallback.index"
DETACHED = "mai.detached"
LINK = "mai.link"
PLAN_HASH = "mai.plan.hash"
THREAD_ABANDONED = "mai.thread.abandoned"
FIRST_CHUNK = "mai.first_chunk"
ERROR_TYPE = "error.type"
CONVERSATION_ID = "gen_ai.conversation.id"
SESSION_ID = "session.id"

# modules and composites
KIND = "mai.kind"
MODULE = "mai.module"
TAGS = "mai.tags"
CODE_FUNCTION = "code.function.name"
OPERATION = "gen_ai.operation.name"
WORKFLOW = "gen_ai.workflow.name"
OPENINFERENCE_KIND = "openinference.span.kind"
RETRY_MAX = "mai.retry.max"
BRANCH_INDEX = "mai.branch.index"
BRANCH_KEY = "mai.branch.key"
PARALLEL_WIDTH = "mai.parallel.width"
PARALLEL_LIMIT = "mai.parallel.limit"
DELAY_SECONDS = "mai.delay.seconds"
DECISION = "mai.decision"
DECISION_PREDICATE = "mai.decision.predicate"
LOOP_TURNS = "mai.loop.turns"
LOOP_LIMIT = "mai.loop.max_iters"
ASKED = "mai.asked"
ANSWERED = "mai.answered"
MAP_ITEMS = "mai.map.items"

# telemetry, where content is recorded, and the metrics
VALUE = {"input": "input.value", "output": "output.value"}
MIME_TYPE = {"input": "input.mime_type", "output": "output.mime_type"}
WORKFLOW_DURATION = "gen_ai.workflow.duration"

# models
PROVIDER = "gen_ai.provider.name"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_STOP = "gen_ai.request.stop_sequences"
REQUEST_SEED = "gen_ai.request.seed"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_FINISH = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
DIMENSIONS = "gen_ai.embeddings.dimension.count"
COST_USD = "mai.cost.usd"

# tools
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL_ID = "gen_ai.tool.call.id"
APPROVAL = "mai.tool.approval"

# agents
AGENT_NAME = "gen_ai.agent.name"
AGENT_DESCRIPTION = "gen_ai.agent.description"
AGENT_TURNS = "mai.agent.turns"
AGENT_MAX_TURNS = "mai.agent.max_turns"

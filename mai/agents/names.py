"""The attribute names of what agents write into spans and handles."""

OPENINFERENCE_KIND = "openinference.span.kind"
OPERATION = "gen_ai.operation.name"
AGENT_NAME = "gen_ai.agent.name"
AGENT_DESCRIPTION = "gen_ai.agent.description"
TURNS = "mai.agent.turns"
MAX_TURNS = "mai.agent.max_turns"

"""OpenAI's dialect: models, completions, chat and embeddings, with streaming, and vLLM's adapters.

Fields and shapes: https://platform.openai.com/docs/api-reference. `top_k`, `min_p`, `repetition_penalty`,
`ignore_eos` and `stop_token_ids` are extensions that vLLM has too, under the same names. What would change
the answer and is not implemented is refused by name, not ignored.
"""

from starlette.routing import Route

from service.openai.adapters import load_lora_adapter, unload_lora_adapter
from service.openai.chat import chat_completions
from service.openai.completions import completions
from service.openai.embeddings import embeddings
from service.openai.models import find_model, list_models

routes = [
    Route("/completions", completions, methods=["POST"]),
    Route("/chat/completions", chat_completions, methods=["POST"]),
    Route("/embeddings", embeddings, methods=["POST"]),
    Route("/load_lora_adapter", load_lora_adapter, methods=["POST"]),
    Route("/unload_lora_adapter", unload_lora_adapter, methods=["POST"]),
    Route("/models", list_models),
    Route("/models/{model}", find_model),
]

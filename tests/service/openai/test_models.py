"""The list of models, asked for by the unmodified `openai` client."""


def test_models_are_listed_and_found(client):
    assert {model.id for model in client.models.list()} == {"digits-tiny", "chatter-tiny"}
    assert client.models.retrieve("chatter-tiny").id == "chatter-tiny"

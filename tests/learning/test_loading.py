import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from stepwise_dpo.errors import ModelError
from stepwise_dpo.learning import loading
from stepwise_dpo.learning.loading import load_policy, switch_off_dropout
from stepwise_dpo.learning.names import MODELS_DIR
from stepwise_dpo.learning.tiny import build_tiny_tokenizer


def test_a_local_encoder_decoder(flan_t5_small_folder):
    policy = load_policy(str(flan_t5_small_folder))
    assert policy.is_encoder_decoder
    assert policy.model.dtype == torch.float32
    assert sum(p.numel() for p in policy.model.parameters()) == 76_961_152  # flan-t5-small's own number


def test_a_local_causal_model(causal_folder):
    policy = load_policy(str(causal_folder))
    assert not policy.is_encoder_decoder
    assert policy.tokenizer.pad_token_id == 0


def test_the_tiny_model_is_the_same_every_time_and_leaves_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, other = load_policy("tiny"), load_policy("tiny")
    assert torch.equal(torch.rand(1), expected)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=64))


def bart():
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            attention_dropout=0.1,
            activation_dropout=0.1,
            encoder_layerdrop=0.2,
        )
    )


@pytest.mark.parametrize("build", [gpt2, bart])
def test_dropout_is_off_in_train_mode(build):
    model = build().train()
    ids = torch.arange(5, 25)[None]
    assert not torch.equal(model(ids).logits, model(ids).logits)  # it was on
    switch_off_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_dropout_is_off_in_train_mode_for_t5(flan_t5_small_folder):
    model = load_policy(str(flan_t5_small_folder)).model.train()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(model(ids, labels=ids).logits, model(ids, labels=ids).logits)
    assert model.config.dropout_rate == 0.1  # what is saved with the model is the model's


def test_no_such_folder():
    with pytest.raises(ModelError, match=r"'\./nowhere': no such folder"):
        load_policy("./nowhere")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_policy(str(tmp_path))


def test_a_run_folder_points_to_its_model(tmp_path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"is a run folder; its trained model is .*final"):
        load_policy(str(tmp_path))


@pytest.mark.parametrize("name", ["google/flan-t5-small", "flan-t5-small"])
def test_a_hub_model_without_a_network(name, monkeypatch):
    monkeypatch.setattr(loading, "_hub_reachable", lambda: False)
    with pytest.raises(
        ModelError, match=r"not on this machine and the Hugging Face Hub can't be reached.*'policy'"
    ) as error:
        load_policy(name)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_refused(causal_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(causal_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \.safetensors weights; pickled weights are never loaded"):
        load_policy(str(folder))


def test_remote_code_is_refused(causal_folder, tmp_path):
    folder = tmp_path / "remote"
    shutil.copytree(causal_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    with pytest.raises(ModelError, match="needs its own Python code"):
        load_policy(str(folder))
    assert not (tmp_path / "ran").exists()


def test_damaged_weights(causal_folder, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(causal_folder, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="can't be loaded"):
        load_policy(str(folder))


def test_a_tokenizer_larger_than_the_model(causal_folder, sentencepiece_tokenizer, tmp_path):
    folder = tmp_path / "mismatch"
    shutil.copytree(causal_folder, folder)
    sentencepiece_tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="the tokenizer knows 600 tokens but the model embeds only 258"):
        load_policy(str(folder))


def test_several_threads_load_at_once(bundled_copy):
    names = ["policy", "reward", str(bundled_copy), "tiny"] * 3
    with ThreadPoolExecutor(len(names)) as pool:
        policies = list(pool.map(load_policy, names))
    expected = {name: load_policy(name).model.state_dict() for name in names[:4]}
    for name, policy in zip(names, policies, strict=True):
        weights = policy.model.state_dict()
        assert all(torch.equal(weights[key], value) for key, value in expected[name].items())


@pytest.fixture
def bundled_copy(tmp_path):
    """A copy of the bundled policy to damage."""
    return shutil.copytree(MODELS_DIR / "policy", tmp_path / "copy")


def set_in(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_layers": 4}, r"lack 8 weights .* 'encoder\.block\.3\..* random numbers"),
        ({"num_decoder_layers": 1}, r"hold \d+ weights that its config\.json has no place for, 'decoder\.block\.1"),
        ({"num_layers": -1}, "has no place for"),
        ({"vocab_size": 10}, "other shapes than its config.json says"),
        ({"d_model": "x"}, "damaged, or of another kind"),
        ({"eos_token_id": "a"}, "damaged, or of another kind"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id in its config.json .* not None"),
        ({"decoder_start_token_id": 99999}, "decoder_start_token_id in its config.json .* not 99999"),
        ({"model_type": "gpt2", "is_encoder_decoder": True}, "not of a kind that is wanted here"),
    ],
)
def test_a_config_that_does_not_describe_the_weights(bundled_copy, settings, words):
    set_in(bundled_copy / "config.json", **settings)
    with pytest.raises(ModelError, match=words):
        load_policy(str(bundled_copy))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["null", "[]", "3", '"x"'])
def test_json_of_another_shape(bundled_copy, name, text):
    (bundled_copy / name).write_text(text)
    with pytest.raises(ModelError, match="can't be loaded"):
        load_policy(str(bundled_copy))


def test_token_ids_of_the_generation_are_checked_and_completed(bundled_copy):
    path = bundled_copy / "generation_config.json"
    path.write_text('{"eos_token_id": [1, 99999]}')
    with pytest.raises(ModelError, match=r"eos_token_id in its generation_config\.json"):
        load_policy(str(bundled_copy))
    path.write_text('{"eos_token_id": 1}')
    model = load_policy(str(bundled_copy)).model
    assert model.generation_config.decoder_start_token_id == model.config.decoder_start_token_id


def test_a_model_that_reads_in_both_directions_is_no_language_model(tmp_path):
    tokenizer = build_tiny_tokenizer()
    BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="reads in both directions"):
        load_policy(str(tmp_path))

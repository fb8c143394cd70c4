"""The table of the classic interface: each name that old programs touch, and its test."""

import ast
import inspect
from pathlib import Path

import pytest

import lora_detox.classic as classic
from lora_detox.classic import core
from tests.unit.classic.programs import policy, quiet_trainer

TABLE = {
    "PPOConfig": "test_every_documented_field_has_its_default",
    "PPOConfig: mutable, lazy": "test_it_is_mutable_and_read_lazily",
    "PPOConfig: several trainers": "test_one_config_serves_several_trainers",
    "PPOConfig: ValueError": "test_sizes_must_divide",
    "PPOConfig: command line": "test_it_parses_from_a_command_line",
    "PPOTrainer": "test_config_and_model_are_positional_and_checked",
    "AutoModelForCausalLMWithValueHead": "test_forward_gives_logits_loss_and_values",
    "AutoModelForSeq2SeqLMWithValueHead": "test_forward_gives_logits_loss_and_values",
    "create_reference_model": "test_an_independent_reference_stays",
    "create_reference_model: num_shared_layers": "test_shared_layers_share_memory_and_are_frozen",
    "create_reference_model: pattern": "test_a_pattern_names_layers_that_cannot_be_guessed",
    "create_reference_model: PEFT": "test_a_peft_reference_copies_only_what_learns",
    "set_seed": "test_set_seed",
    "LengthSampler": "test_length_sampler",
    "LengthSampler: np.int64": "test_numpy_integers_work_as_max_new_tokens",
    "respond_to_batch": "test_respond_to_batch",
    "logprobs_from_logits": "test_logprobs_from_logits",
    "masked_mean": "test_masked_mean",
    "masked_var": "test_masked_var",
    "masked_whiten": "test_masked_whiten_and_whiten",
    "whiten": "test_masked_whiten_and_whiten",
    "from_pretrained: str": "test_saved_models_reload_in_transformers_and_here",
    "from_pretrained: PreTrainedModel": "test_ready_models_tolerate_loading_keywords",
    "from_pretrained: PeftModel": "test_a_step_gives_gradients_and_statistics",
    "from_pretrained: summary_dropout_prob": "test_dropout_of_the_head",
    "from_pretrained: torch_dtype": "test_bf16",
    "from_pretrained: is_trainable": "test_adapters_reload_in_peft_here_and_in_the_engine",
    "from_pretrained: peft_config": "test_adapters_reload_in_peft_here_and_in_the_engine",
    "from_pretrained: load_in_8bit": "test_an_eight_bit_policy_learns",
    "from_pretrained: reward_adapter": "test_reward_adapter",
    "from_pretrained: no LM head": "test_models_without_a_language_head_are_refused",
    "from_pretrained: .bin": "test_old_bin_files_are_read_as_tensors_or_refused",
    "transformers_parent_class": "test_attributes",
    "lm_head_namings": "test_attributes",
    "v_head": "test_attributes",
    "v_head.dropout": "test_dropout_of_the_head",
    "is_peft_model": "test_attributes",
    "gradient_checkpointing_enable": "test_gradient_checkpointing_recomputes_and_changes_nothing",
    "forward": "test_forward_gives_logits_loss_and_values",
    "model.generate": "test_greedy_batches_equal_single_rows",
    "state_dict": "test_names_of_state_and_parameters",
    "named_parameters": "test_names_of_state_and_parameters",
    "save_pretrained: shards": "test_saved_models_reload_in_transformers_and_here",
    "deepcopy": "test_deepcopy",
    "compute_reward_score": "test_reward_adapter",
    "model.push_to_hub": "test_push_to_hub",
    "PPOTrainer: warnings": "test_reference_and_shared_layers_together_warn",
    "PPOTrainer: pad_token later": "test_the_pad_token_may_be_set_later",
    "dataloader": "test_the_dataloader_is_shuffled_and_drops_the_rest",
    "model, ref_model": "test_attributes",
    "accelerator": "test_attributes",
    "optimizer.optimizer": "test_a_custom_optimizer_and_scheduler",
    "lr_scheduler.scheduler": "test_a_custom_optimizer_and_scheduler",
    "kl_ctl": "test_holds",
    "gradients after step": "test_a_step_gives_gradients_and_statistics",
    "generate": "test_greedy_batches_equal_single_rows",
    "generate: return_prompt": "test_holds",
    "generate: generate_ref_response": "test_reference_responses",
    "generate: keywords": "test_generation_keywords_of_old_programs",
    "step": "test_two_steps_equal_trl",
    "step: response_masks": "test_two_steps_with_response_masks_equal_trl",
    "step: scores": "test_safety_checker",
    "step: gradient accumulation": "test_gradient_accumulation_equals_larger_batches",
    "log_stats": "test_log_stats_writes_tensorboard",
    "save_pretrained": "test_save_pretrained_of_a_full_model",
    "push_to_hub": "test_push_to_hub",
    "create_model_card": "test_create_model_card",
    "prepare_dataloader": "test_the_dataloader_is_shuffled_and_drops_the_rest",
    "prepare_model_inputs": "test_forward_pass_equals_one_plain_forward_per_row",
    "gather_stats": "test_score_clip_and_record_step_stats",
    "record_step_stats": "test_score_clip_and_record_step_stats",
    "train_minibatch": "test_train_minibatch_by_itself",
    "batched_forward_pass": "test_forward_pass_equals_one_plain_forward_per_row",
    "compute_rewards": "test_compute_rewards_and_advantages_by_hand",
    "compute_advantages": "test_compute_rewards_and_advantages_by_hand",
    "loss": "test_loss_accepts_two_dimensional_logits_and_float_masks",
    "_kl_penalty": "test_kl_penalties",
    "_step_safety_checker": "test_safety_checker",
    "stats keys": "test_a_step_gives_gradients_and_statistics",
    "fault: encoder-decoder mask": "test_the_first_response_token_of_t5_is_trained",
    "fault: one token after the start": "test_a_t5_response_of_one_token_is_no_error",
    "fault: use_score_scaling": "test_score_scaling_works",
    "fault: ref_model with PEFT": "test_a_given_reference_is_used_for_a_peft_policy",
    "fault: max_grad_norm": "test_the_gradient_norm_is_bounded_at_every_update",
    "fault: num_shared_layers": "test_shared_layers_share_memory_and_are_frozen",
    "fault: dropout": "test_dropout_is_off_in_every_pass",
    "fault: generate_ref_response": "test_reference_responses",
    "strict_trl_masks": "test_strict_masks_reproduce_the_old_one_and_can_be_set_on_either",
    "learning": "test_one_step_makes_liked_responses_likelier",
    "planted faults": "test_a_planted_fault_is_found",
}


def known_tests():
    here = Path(__file__).parent
    names = set()
    for file in [*here.glob("test_*.py"), *(here.parents[1] / "golden").glob("test_*.py")]:
        nodes = ast.walk(ast.parse(file.read_text()))
        names |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
    return names


def test_every_name_has_a_test():
    assert set(TABLE.values()) - known_tests() == set()


def test_every_difference_of_the_page_has_a_test():
    page = Path(__file__).parents[3] / "docs" / "classic_differences.md"
    named = {word.strip("`,.()|") for word in page.read_text().split() if "test_" in word}
    assert len(named) > 20
    assert named - known_tests() == set()


EXPORTS = (
    "PPOConfig", "PPOTrainer", "AutoModelForCausalLMWithValueHead",
    "AutoModelForSeq2SeqLMWithValueHead", "create_reference_model", "set_seed", "LengthSampler",
    "respond_to_batch", "logprobs_from_logits", "masked_mean", "masked_var", "masked_whiten",
    "whiten",
)  # fmt: skip
TRAINER = (
    "generate", "step", "log_stats", "save_pretrained", "push_to_hub", "create_model_card",
    "prepare_dataloader", "prepare_model_inputs", "gather_stats", "record_step_stats",
    "train_minibatch", "batched_forward_pass", "compute_rewards", "compute_advantages", "loss",
    "_kl_penalty", "_step_safety_checker", "config", "model", "ref_model", "tokenizer", "dataset",
    "dataloader", "accelerator", "optimizer", "lr_scheduler", "kl_ctl", "is_encoder_decoder",
    "is_peft_model", "current_device",
)  # fmt: skip
ORDER = (
    "self", "config", "model", "ref_model", "tokenizer", "dataset", "optimizer", "data_collator",
    "num_shared_layers", "lr_scheduler", "training_data_collator",
)  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_exported(name):
    assert name in classic.__all__
    assert hasattr(classic, name)
    assert name in TABLE


def test_what_was_in_trl_core():
    for name in ("LengthSampler", "respond_to_batch", "masked_mean", "masked_var", "masked_whiten"):
        assert getattr(core, name) is getattr(classic, name)
    assert core.set_seed is classic.set_seed


def test_the_trainer_has_every_name_in_the_old_order():
    trainer = quiet_trainer(policy())
    assert [name for name in TRAINER if not hasattr(trainer, name)] == []
    parameters = tuple(inspect.signature(classic.PPOTrainer.__init__).parameters)
    assert parameters[: len(ORDER)] == ORDER

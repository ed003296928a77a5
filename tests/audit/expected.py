"""What the audit has to say about every script of ``scripts/``.

A line is marked in a script by a comment ``# <- …``; where several lines are marked, a finding may
name any of them. ``module`` is a pattern for ``fnmatch``. The checks read neither this table nor
the marks.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOW = {
    "lightning_frozen_statistics",
    "trainer_frozen_dropout",
    "ok_frozen_text_encoder",
    "ok_lightning",
    "thread_000",
    "thread_002",
    "thread_003",
    "ok_timm_features",
    "timm_test_time_batch_statistics",
    "classifier_not_removed",
    "field_accelerate_accumulation",
    "field_bert_features",
    "field_lightning_train_forgotten",
    "ok_accelerate",
    "ok_hf_vit",
    "ok_segmentation",
}
"""Scripts that bring a large library with them, or run a large network: left to the slow suite."""


@dataclass(frozen=True)
class Faulty:
    """A faulty script.

    Attributes:
        script: its name; the mended twin is ``{script}_mended``.
        codes: findings that must be there, all of them at a marked line.
        module: a pattern that one of their modules must match.
        remark: whether it is wasteful and not wrong, so that severity "info" is right.
    """

    script: str
    codes: tuple[str, ...]
    module: str = "*"
    remark: bool = False


FAULTY = (
    # frozen parts, modes, autograd, optimizers
    Faulty("frozen_weight_decay", ("frozen-parameter-moved",), "conv1*"),
    Faulty("frozen_ema", ("frozen-parameter-moved",), "conv1*"),
    Faulty("frozen_direct_write", ("frozen-parameter-moved",), "*"),
    Faulty("frozen_statistics_tutorial", ("frozen-statistics-moved",), "bn1"),
    Faulty("frozen_momentum_zero", ("frozen-batch-statistics",), "*"),
    Faulty("batch_statistics_in_features", ("batch-statistics-in-extraction",), "*"),
    Faulty(
        "batch_statistics_in_evaluation",
        ("evaluation-in-training-mode", "batch-statistics-in-evaluation"),
        "*",
    ),
    Faulty("eval_undone", ("eval-undone",), "encoder*"),
    Faulty("evaluated_in_training_mode", ("evaluation-in-training-mode",), "*"),
    Faulty("trained_in_evaluation_mode", ("trained-in-evaluation-mode",), "*"),
    Faulty("dropout_in_frozen_part", ("dropout-in-frozen-part",), "submodule*"),
    Faulty("droppath_in_features", ("dropout-in-extraction",), "*"),
    Faulty("rows_depend_on_batch", ("rows-depend-on-batch",), "*"),
    Faulty("rows_differ", ("rows-differ-between-passes",), "*"),
    Faulty("wasted_gradients", ("wasted-gradients",), "*"),
    Faulty("inference_tensors", ("inference-tensors-in-autograd",), "*"),
    Faulty("optimizer_holds_frozen", ("optimizer-holds-frozen",), "conv1", remark=True),
    Faulty("optimizer_misses_trainable", ("optimizer-misses-trainable",), "fc*"),
    Faulty("optimizer_stale_after_unfreezing", ("optimizer-misses-trainable",), "layer3*"),
    Faulty("head_replaced_after_optimizer", ("optimizer-holds-stale",), "*"),
    Faulty("optimizer_rate_without_effect", ("group-without-effect",), "*"),
    Faulty("scheduler_before_optimizer", ("scheduler-misstepped",)),
    Faulty("scheduler_every_batch", ("scheduler-misstepped",)),
    Faulty("batch_of_one", ("batch-of-one",), "bn1"),
    Faulty("accumulation_with_batch_norm", ("accumulation-with-batch-norm",), "*"),
    Faulty("swa_without_statistics", ("averaged-statistics",), "*"),
    Faulty("ema_statistics_reset", ("averaged-statistics",), "*"),
    Faulty("lightning_frozen_statistics", ("frozen-statistics-moved",), "*bn1"),
    Faulty("trainer_frozen_dropout", ("dropout-in-frozen-part",), "bert*"),
    Faulty("timm_test_time_batch_statistics", ("batch-statistics-in-extraction",), "*"),
    Faulty("encoder_decoder_toggled", ("frozen-statistics-moved",), "encoder*"),
    # inputs, data, heads
    Faulty("input_scale", ("input-mismatch",), "bn1"),
    Faulty("input_scaled_twice", ("input-mismatch",), "bn1"),
    Faulty("input_normalisation", ("input-mismatch",), "1"),
    Faulty("input_channel_order", ("input-mismatch",), "bn1"),
    Faulty("input_layout", ("input-mismatch",), "bn1"),
    Faulty("input_normalisation_timm", ("input-mismatch",)),
    Faulty("input_resolution", ("input-resolution",)),
    Faulty("preprocessing_differs", ("preprocessing-differs",)),
    Faulty("augmented_evaluation", ("augmented-evaluation",)),
    Faulty("augmented_features", ("augmented-features",)),
    Faulty("augmentation_lost", ("augmented-features",)),
    Faulty("class_ordered_batches", ("class-ordered-batches",), "bn1"),
    Faulty("wild_feature_scale", ("wild-feature-scale",)),
    Faulty("classifier_not_removed", ("classifier-not-removed",), "fc"),
    Faulty("softmax_as_features", ("classifier-not-removed",), "*trunk.fc"),
    Faulty("softmax_before_loss", ("softmax-before-loss",)),
    Faulty("train_test_duplicates", ("train-test-copies",)),
    Faulty("groups_on_both_sides", ("train-test-copies",)),
    Faulty("selection_on_test_data", ("test-data-selects",)),
    Faulty("train_evaluation_gap", ("train-evaluation-gap",), "bn1"),
    Faulty("pooled_over_wrong_axes", ("wrong-pooling",)),
    Faulty("class_token_pooled", ("wrong-pooling",)),
    Faulty("head_from_embeddings", ("head-from-embeddings",)),
    Faulty("folds_tear_subjects", ("train-test-copies",)),
    Faulty("cached_without_hooks", ("cached-without-hooks",), "layer2"),
    Faulty("cached_with_other_preprocessing", ("preprocessing-differs",)),
    # Keras
    Faulty("keras_training_overridden", ("keras-training-overridden",), "*"),
    Faulty("keras_batch_norm_moves", ("keras-batch-norm-moved",), "*"),
    Faulty("keras_augmentation_in_predict", ("keras-random-in-predict",), "*"),
    Faulty("keras_missing_rescaling", ("keras-input-mismatch",), "*"),
    Faulty("keras_trainable_after_compile", ("keras-trainable-after-compile",), "*"),
)

FIELD: dict[str, tuple[str, ...]] = {
    # Written before anything was mended for them, to count what is found and what is missed.
    "field_accelerate_accumulation": ("accumulation-with-batch-norm",),
    "field_adapters_in_a_list": ("optimizer-misses-trainable",),
    "field_bert_features": ("dropout-in-extraction",),
    "field_best_of_history": ("test-data-selects",),
    "field_clipped_weights": ("frozen-parameter-moved",),
    "field_copies_by_augmentation": ("train-test-copies",),
    "field_demo_not_normalised": ("preprocessing-differs",),
    "field_ema_without_buffers": ("averaged-statistics",),
    "field_eval_in_constructor": ("eval-undone", "frozen-statistics-moved"),
    "field_graph_thrown_away": ("wasted-gradients",),
    "field_group_kept_frozen": ("group-without-effect", "scheduler-misstepped"),
    "field_lightning_train_forgotten": ("trained-in-evaluation-mode",),
    "field_logits_for_sklearn": ("classifier-not-removed",),
    "field_no_grad_backbone": ("frozen-statistics-moved",),
    "field_normalised_pooling": ("wrong-pooling",),
    "field_normalised_twice": ("input-mismatch",),
    "field_one_cycle_by_epoch": ("scheduler-misstepped",),
    "field_random_crops_cached": ("augmented-features",),
    "field_sigmoid_twice": ("softmax-before-loss",),
    "field_sorted_sampler": ("class-ordered-batches",),
    "field_stopped_on_test": ("test-data-selects",),
    "field_test_statistics": ("rows-depend-on-batch",),
    "field_wrong_object_in_eval": ("evaluation-in-training-mode",),
    # A second round, after the first was mended.
    "field_best_in_a_trainer": ("test-data-selects",),
    "field_blue_first": ("input-mismatch",),
    "field_detached_inside": ("frozen-statistics-moved",),
    "field_folds_share_a_network": ("train-test-copies",),
    "field_last_batch_of_one": ("batch-of-one",),
    "field_momentum_after_freezing": ("frozen-parameter-moved",),
    "field_noise_in_forward": ("rows-differ-between-passes",),
    "field_pooled_inside": ("wrong-pooling",),
    "field_probabilities_for_nll": ("softmax-before-loss",),
    "field_step_schedule_by_batch": ("scheduler-misstepped",),
    # A third one: it was once told to freeze a head that no optimizer holds.
    "field_second_head_replaced": ("optimizer-holds-stale", "optimizer-misses-trainable"),
    "field_teacher_switched_on": ("batch-statistics-in-extraction", "dropout-in-extraction"),
}
"""Scripts in the style of users, each with one mistake: all of these findings at marked lines."""

THREADS: dict[str, tuple[str, ...]] = {
    # The inputs are unscaled, which evaluation mode shows and batch statistics hide.
    "thread_000": ("input-mismatch", "batch-statistics-in-extraction"),
    # train(False) is right; the pictures are not normalised.
    "thread_002": ("input-mismatch",),
    # 32 px for ResNet-18, statistics that move in a frozen trunk, an epoch chosen on test data.
    "thread_003": ("input-resolution", "frozen-statistics-moved", "test-data-selects"),
    # Dropout stays on in an encoder that cannot make up for it.
    "thread_004": ("dropout-in-frozen-part",),
}
"""The scripts of the threads, and what a senior engineer would answer."""

TROUBLE: dict[str, tuple[str, str]] = {
    "trouble_crash": ("crash", "mat1 and mat2 shapes cannot be multiplied"),
    "trouble_exit": ("exit", "sys.exit(3)"),
    "trouble_workers": ("end", ""),
    "trouble_stdin": ("crash", "standard input"),
    "trouble_no_training": ("end", ""),
    "trouble_argparse": ("exit", "sys.exit"),
    "trouble_endless": ("steps", "stopped after 20 steps"),
    "trouble_loop_without_steps": ("seconds", "stopped after"),
}
"""How these end, and what the message holds."""

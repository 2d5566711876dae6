"""distil_lib: DistilBERT (Sanh et al. 2019) step by step, at every scale by the same code.

    from distil_lib import Student, TripleLoss, initialize_student, load_teacher

The paper is the files of this folder, in this order: student, teacher, initialization, losses,
fused_losses, masking, distillation, evaluation. Everything else has a room named by its subject.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distil_lib.distillation import DistillationStep
    from distil_lib.evaluation import evaluate_masked_lm
    from distil_lib.initialization import initialize_student, select_layers
    from distil_lib.losses import TripleLoss, cosine_loss, mlm_loss, soft_target_loss
    from distil_lib.masking import DynamicMasking
    from distil_lib.student import Student
    from distil_lib.teacher import load_teacher
    from distil_lib.training.config import PretrainConfig

__version__ = "0.1.0"
__all__ = [
    "DistillationStep",
    "DynamicMasking",
    "PretrainConfig",
    "Student",
    "TripleLoss",
    "cosine_loss",
    "evaluate_masked_lm",
    "initialize_student",
    "load_teacher",
    "mlm_loss",
    "select_layers",
    "soft_target_loss",
]
# Where each name is defined. It is imported when it is first asked for, so that `import distil_lib`
# costs no time.
_HOMES = {
    "DistillationStep": "distillation",
    "DynamicMasking": "masking",
    "PretrainConfig": "training.config",
    "Student": "student",
    "TripleLoss": "losses",
    "cosine_loss": "losses",
    "evaluate_masked_lm": "evaluation",
    "initialize_student": "initialization",
    "load_teacher": "teacher",
    "mlm_loss": "losses",
    "select_layers": "initialization",
    "soft_target_loss": "losses",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

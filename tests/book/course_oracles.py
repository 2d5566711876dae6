"""What the answers to the problem sets must be, computed in another way than the solutions do.

    found, right = ORACLES["1.4"](values)     # values: what the solved notebook defines

PyTorch's gradients, losses and attention, transformers' schedule, models whose parameters are
counted, scikit-learn, scipy, statsmodels, and arithmetic step by step.
"""

import copy
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.metrics import matthews_corrcoef
from statsmodels.stats.multitest import multipletests
from transformers import BertConfig, get_linear_schedule_with_warmup

import distil_lib
from distil_lib.ablation.paired_effects import holm as library_holm
from distil_lib.initialization import student_config
from distil_lib.losses import cosine_loss, soft_target_loss


def gradient_of_the_loss(v):
    z, t = torch.randn(2, 5, 9, dtype=torch.float64).mul(2)
    z.requires_grad_()
    (right,) = torch.autograd.grad(soft_target_loss(z, t, temperature=3.0), z)
    return v["pull"](z.detach(), t, 3.0), right


def smoothing_of_pytorch(v):
    z, y = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 4, 4, 2, 3])
    return v["smoothed_loss"](z, y, 0.2), F.cross_entropy(z, y, label_smoothing=0.2)


def limits_of_the_loss(v):
    z, t = torch.tensor([[0, 2, 4.0]]).double(), torch.tensor([[3, 0, 0.0]]).double()
    cold = soft_target_loss(z, t, temperature=0.02) / 0.02
    return [v["hot"], v["cold"]], [soft_target_loss(z, t, temperature=1e4), cold]


def kept_by_numpy(v):
    z = np.random.default_rng(0).normal(size=(4, 6))
    p = np.exp(z / 2)
    p[np.arange(4)[:, None], z.argsort()[:, :3]] = 0
    return v["keep_top"](torch.tensor(z), 3, 2.0), p / p.sum(1, keepdims=True)


def words_one_by_one(v):
    """k such that k words have 95% and k - 1 have not."""
    shares = []
    for T, k in ((1, v["k_cold"]), (2, v["k_warm"])):
        t = (v["teacher_logits"].double() / T).softmax(-1)
        shares += [float(t.topk(n).values.sum(-1).mean()) >= 0.95 for n in (k, k - 1)]
    return shares, [True, False, True, False]


def correlation_by_scipy(v):
    t, s = (v[f"{x}_logits"].double().softmax(-1) for x in ("teacher", "student"))
    entropy = stats.entropy(t, axis=1)
    same = t.argmax(1) == s.argmax(1)
    low = torch.tensor(entropy) <= np.sort(entropy)[(len(entropy) - 1) // 2]
    right = [stats.pearsonr(entropy, stats.entropy(t, s, axis=1))[0]]
    right += [same[part].double().mean() for part in (low, ~low)]
    return [v["correlation"], v["agree_sure"], v["agree_unsure"]], right


def parameters_of_a_model(v):
    config = BertConfig(
        hidden_size=128, intermediate_size=512, num_attention_heads=2, vocab_size=8192
    )
    encoder = distil_lib.Student(student_config(config, 4)).distilbert
    sizes = [
        sum(p.numel() for p in part.parameters())
        for part in (encoder.transformer.layer[0], encoder.embeddings, encoder)
    ]
    return [v["layer"], v["share"]], [sizes[0], sizes[1] / sizes[2]]


def tokens_counted(v):
    """Three sentences in six places, one masked token each; the bugs by the library's loss."""
    mask = torch.arange(6) < torch.tensor([6, 4, 2])[:, None]
    t = torch.randn(3, 6, 5, dtype=torch.float64)
    s = torch.where(mask[..., None], torch.randn(3, 6, 5, dtype=torch.float64), t)
    right = soft_target_loss(s, t, mask)
    batchmean = soft_target_loss(s, t, mask, reduction="sum") / 3
    found = [v[f"tokens_{x}"] for x in ("ce", "mlm", "cos")]
    wrong = [soft_target_loss(s, t) / right, batchmean / right]
    counts = [int(mask.sum()), 3, int(mask.sum())]
    return [*found, v["without_mask"], v["with_batchmean"]], [*counts, *wrong]


def attention_of_pytorch(v):
    q, k, x = torch.randn(3, 2, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    right = F.scaled_dot_product_attention(q, k, x, attn_mask=mask[:, None, :])
    return v["attend"](q, k, x, mask), right


def cosine_of_the_library(v):
    s, t = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    return v["state_loss"](s, t, mask), cosine_loss(s, t, mask)


def schedule_of_transformers(v):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 100)
    right = [2.0 * schedule.lr_lambdas[0](step) for step in range(101)]
    return [v["learning_rate"](step, 100, 0.1, 2.0) for step in range(101)], right


def examples_show_one_bug_each(v):
    """Against the definition, in double precision."""
    found = []
    for name in "abc":
        s, t, mask, T = v[f"example_{name}"]
        log_s, log_t = (s[mask] / T).log_softmax(-1), (t[mask] / T).log_softmax(-1)
        right = T**2 * (log_t.exp() * (log_t - log_s)).sum() / mask.sum()
        off = [abs(float(v[f"loss_{x}"](s, t, mask, T) - right)) for x in "abc"]
        assert all(x > 0.01 or x < 1e-6 for x in off)
        found.append([x > 0.01 for x in off])
    return found, np.eye(3)


def harm_of_an_identity(v):
    """A layer is removed by putting the identity in its place, in the teacher itself."""
    right = []
    for removed in ([0], [1], [2], [3], [4], [5], [1, 3]):
        teacher = copy.deepcopy(v["teacher"])
        layers = teacher.model.base_model.encoder.layer
        for i in sorted(removed, reverse=True):
            del layers[i]
        logits = v["every_blank"](teacher)
        right.append(float(soft_target_loss(logits, v["teacher_logits"], temperature=1.0)))
    return [*v["harm"], v["together"]], right


def retention_example_by_example(v):
    chance = np.random.default_rng(0)
    s, t = chance.integers(0, 2, (2, 30))
    draws = chance.integers(0, 30, (100, 30))
    kept = [100 * sum(s[i] for i in draw) / sum(t[i] for i in draw) for draw in draws]
    return v["retention"](s, t, draws), [np.quantile(kept, 0.025), np.quantile(kept, 0.975)]


def correlation_of_sklearn(v):
    p, y = np.random.default_rng(0).integers(0, 2, (2, 40))
    return v["matthews"](p, y), matthews_corrcoef(y, p)


def holm_of_statsmodels(v):
    p = [0.03, 0.011, 0.02, 0.6, 0.011]
    assert np.allclose(library_holm(p), v["holm"](p))
    return v["holm"](p), multipletests(p, method="holm")[1]


def paired_tests_of_scipy(v):
    """Three of five seeds: scipy's own paired test instead of our interval."""
    right = []
    for measure in v["MEASURES"]:
        values = v["grid_values"](measure)
        for arm in v["ARMS"]:
            pairs = [[values[name][seed] for name in (arm, "triple")] for seed in range(5)]
            chosen = [np.array(three).T for three in combinations(pairs, 3)]
            right.append(sum(stats.ttest_rel(*three).pvalue < 0.05 for three in chosen))
    return np.ravel(v["found"]), right


def plan_by_hand(v):
    """FLOPs counted matrix by matrix: H = 768, V = 30,522, blocks of 512, all tokens."""
    H, V, L = 768, 30522, 512
    layer, head = 2 * 12 * H * H + 2 * 2 * L * H, 2 * (H * H + H * V)
    tokens = round(3 * (100_000_000 // (L - 2))) * L
    flops = {n: (3 * (n * layer + head) + 12 * layer + head) * tokens for n in (6, 3)}
    hours = [flops[n] / (0.3 * 125e12) / 3600 for n in (6, 3)]
    share = (12 * layer + head) * tokens / flops[3]
    return [v["hours_six"], v["hours_three"], v["teacher_share"]], [*hours, share]


ORACLES = {
    "1.1": lambda v: ([v["kl_t_s"], v["kl_s_t"]], [stats.entropy(p, q) for p, q in (
        ([0.5, 0.5, 0], [0.25, 0.25, 0.5]), ([0.25, 0.25, 0.5], [0.5, 0.5, 0]))]),
    # The noise is the variance of the two coordinates of a draw, p (1 - p) each.
    "1.2": lambda v: ([v["noise_first"], v["noise_second"], v["labels"]],
                      [2 * 0.9 * 0.1, 2 * 0.5 * 0.5, 0.5 / 0.18]),
    "1.3": limits_of_the_loss, "1.4": gradient_of_the_loss, "1.5": smoothing_of_pytorch,
    "1.6": kept_by_numpy, "1.7": words_one_by_one, "1.8": correlation_by_scipy,
    "2.1": parameters_of_a_model,
    "2.2": lambda v: ([v[x] for x in ("spread", "alternate")],
                      [distil_lib.select_layers(24, 6, x) for x in ("spread", "alternate")]),
    "2.3": tokens_counted, "2.4": attention_of_pytorch, "2.5": cosine_of_the_library,
    "2.6": schedule_of_transformers, "2.7": examples_show_one_bug_each, "2.8": harm_of_an_identity,
    "3.1": lambda v: (
        [f"{100 * v[f'right_{x}'] / 277:.1f}" for x in ("distilbert", "bert")]
        + [f"{(59.9 * 277 / 100 + 1) / 2.77 / 9 - 59.9 / 9:.6f}"],
        ["59.9", "69.3", f"{v['one_answer']:.6f}"]),
    "3.2": lambda v: (
        [v["p_four"], v["seeds"]],
        [stats.binomtest(4, 4).pvalue,
         next(n for n in range(1, 20) if stats.binomtest(n, n).pvalue < 0.05)]),
    "3.3": lambda v: (
        [v["a"] + 12 * v["b"], v["a"] + 6 * v["b"], 668 / v["three_layers"], 668 / v["limit"]],
        [668, 410, np.polyval(np.polyfit([6, 12], [410, 668], 1), 3),
         np.polyval(np.polyfit([6, 12], [410, 668], 1), 0)]),
    "3.4": correlation_of_sklearn, "3.5": retention_example_by_example, "3.6": holm_of_statsmodels,
    "3.7": paired_tests_of_scipy, "3.8": plan_by_hand,
}  # fmt: skip

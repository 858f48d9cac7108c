"""Many ascents at once: the bits of each alone, and no gradient taken twice."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.attacks.core.draws import Draws
from bench.attacks.core.sign_ascent import SignAscent, ascend
from bench.attacks.protocols import paper
from bench.registry import attack
from bench.settings.radii import parse_eps

N = 4
DRAWS = Draws(0, "x", range(N))


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 8), nn.Tanh(), nn.Linear(8, 3)).requires_grad_(False)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(N, 2, 3, 3, generator=generator).mul(1.4).sub(0.2).clamp(0, 1)
    return x, torch.randint(0, 3, (N,), generator=generator)


def ascent(name: str, **options: object) -> SignAscent:
    entry = attack[name]
    made: SignAscent = entry.traits.ascent_of(entry.resolve(options))
    return made


def paper_lanes(*radii: str) -> list[tuple[SignAscent, Tensor]]:
    return [
        (ascent(name, **options), torch.full((N,), float(parse_eps(radius))))
        for radius in radii
        for name, options in paper(parse_eps(radius)).items()
    ]


ASCENTS = st.lists(
    st.tuples(
        st.sampled_from(["ifgsm", "pgd", "pgd-clean"]),
        st.integers(0, 9),
        st.sampled_from([0.5 / 255, 1 / 255, 0.01]),
        st.sampled_from([0.0, 1 / 255, 2 / 255, 2.5 / 255, 4 / 255, 0.05, 1.0]),
    ),
    min_size=1,
    max_size=6,
)


def made(kind: str, steps: int, alpha: float) -> SignAscent:
    extra = {"random_start": kind == "pgd"} if kind != "ifgsm" else {}
    return ascent(kind.split("-", maxsplit=1)[0], steps=steps, alpha=alpha, **extra)


@settings(max_examples=60, deadline=None)
@given(ASCENTS, st.integers(0, 200), st.sampled_from([0.0, 0.4]))
def test_every_lane_gets_the_bits_it_has_alone(
    chosen: list[tuple[str, int, float, float]], seed: int, outside: float
) -> None:
    """Also where images lie outside [0, 1], as normalised tensors do."""
    model, (x, y) = net(seed), batch(seed)
    x = x * (1 + 2 * outside) - outside
    ascents = [(made(kind, steps, alpha), torch.full((N,), eps)) for kind, steps, alpha, eps in chosen]
    together = ascend(model, x, y, ascents, DRAWS, rows=N).images
    for found, one in zip(together, ascents, strict=True):
        assert torch.equal(found, ascend(model, x, y, [one], DRAWS, rows=N).images[0])


def test_radii_per_example_share_only_what_all_of_them_share() -> None:
    model, (x, y) = net(1), batch(1)
    wide, narrow = torch.full((N,), 8 / 255), torch.tensor([8, 1, 8, 8]) / 255
    ascents = [(ascent("ifgsm", steps=6), wide), (ascent("ifgsm", steps=6), narrow)]
    found = ascend(model, x, y, ascents, DRAWS, rows=N)
    for images, one in zip(found.images, ascents, strict=True):
        assert torch.equal(images, ascend(model, x, y, [one], DRAWS, rows=N).images[0])
    assert sum(found.gradients) == 11, "the first gradient alone: one example's ball ends after it"


def test_the_papers_four_radii_take_twelve_gradients_of_ifgsm_and_all_of_pgd() -> None:
    """By hand: 10 steps at 8/255; 2 at 2/255, all inside; the last of 5 at 4/255 and of 7 at 6/255."""
    calls = []
    model, (x, y) = net(0), batch(0)
    model.register_forward_hook(lambda module, inputs, logits: calls.append(len(logits)))
    ascents = paper_lanes("2", "4", "6", "8")
    found = ascend(model, x, y, ascents, DRAWS, rows=N)
    by = {"ifgsm": sum(found.gradients[::2]), "pgd": sum(found.gradients[1::2])}
    assert by == {"ifgsm": 12, "pgd": 24} and calls == [N] * 36
    calls.clear()
    packed = ascend(model, x, y, ascents, DRAWS, rows=100)
    # 5 tracks, then one more for each radius that left the common one, while they last
    assert len(calls) == 10 and sum(calls) == 36 * N
    for one, other in zip(found.images, packed.images, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2.1 / 255)


def test_no_images_no_work() -> None:
    x, y = torch.zeros(0, 2, 3, 3), torch.zeros(0, dtype=torch.long)
    found = ascend(net(0), x, y, [(ascent("pgd"), torch.zeros(0))], Draws(0, "x", []), rows=10)
    assert found.images[0].shape == x.shape and found.gradients == [0.0]


@pytest.mark.parametrize("alpha", [0.0000627356, 0.00006, 1e-5])
def test_many_small_steps_drift_by_rounding_and_stay_within_every_ball(alpha: float) -> None:
    """Each step of x + α may round up; a thousand of them must not carry an image out of the smaller ball unseen."""
    model, (x, y) = net(3), batch(3)
    eps = torch.full((N,), 500 * alpha * 1.0002)
    ascents = [(ascent("ifgsm", steps=500, alpha=alpha), eps), (ascent("ifgsm", steps=500, alpha=alpha), 2 * eps)]
    for order in (ascents, ascents[::-1]):
        for found, one in zip(ascend(model, x, y, order, DRAWS, rows=N).images, order, strict=True):
            assert torch.equal(found, ascend(model, x, y, [one], DRAWS, rows=N).images[0])


def test_no_lanes_images_share_memory_with_anothers_or_with_the_images() -> None:
    """Whoever writes over one ascent's must not change another's; also where no step was taken."""
    model, (x, y) = net(2), batch(2)
    ascents = [
        (ascent("ifgsm", steps=steps), torch.full((N,), eps))
        for steps in (0, 0, 2, 2)
        for eps in (0.0, 4 / 255, 8 / 255)
    ]
    found = ascend(model, x, y, ascents, DRAWS, rows=N).images
    places = {images.untyped_storage().data_ptr() for images in (*found, x)}
    assert len(places) == len(ascents) + 1

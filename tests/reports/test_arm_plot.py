"""The plot of an ablation: differences on a scale of each encoder's own, settings at their numbers, seeds as points."""

import itertools

import pytest

from simcse_bench.reports.arm_plot import places, plot_ablation, plot_title, shown_text
from simcse_bench.reports.plots import OURS, PAPER


def arm(name, values, published=None, interval=None):
    dev = {"mean": sum(values) / len(values), "sd": 1.0 if len(values) > 1 else None, "values": values}
    own = {"arm": name, "seeds": list(range(len(values))), "dev": dev, "published": published}
    return own | ({"difference": {"value": 0.0, "interval": interval, "holm": 1.0, "seeds": 2}} if interval else {})


ARMS = [
    arm("0.0", [30.0, 32.0], 71.0, (-9.0, -1.0)),
    arm("0.1", [36.0, 38.0], 82.5),
    arm("fixed 0.1", [33.0, 35.0], 43.5),
]


def summary(arms=ARMS, axis="dropout", reference="0.1"):
    return {"title": "Dropout", "axis": axis, "reference": reference, "source": "SimCSE Table 3", "arms": arms,
            "model": {"name": "mini", "embedded": True}, "train": {"name": "nli_triplets.csv.gz"},
            "dev": {"title": "STS-B"}}  # fmt: skip


def marks(axes, colour, vertical):
    """Scores of the large marks, in the order of the arms."""
    lines = [line for line in axes.lines if line.get_markersize() == 5.5 and line.get_color() == colour]
    return [float((line.get_ydata() if vertical else line.get_xdata())[0]) for line in lines]


@pytest.mark.parametrize("axis", ["dropout", ""])
def test_each_encoder_is_shown_by_its_differences_on_its_own_scale(axis):
    ours, paper = plot_ablation(summary(axis=axis)).axes
    assert marks(ours, OURS, axis) == [-6.0, 0.0, -3.0]
    assert marks(paper, PAPER, axis) == [-11.5, 0.0, -39.0]
    assert (ours.get_title("left"), paper.get_title("left")) == ("mini, STS-B dev", "BERT-base, SimCSE Table 3")
    label = ours.get_ylabel() if axis else ours.get_xlabel()
    assert "37.0" in label
    seeds = [line for line in ours.lines if line.get_markersize() == 3.2]
    assert [sorted(line.get_ydata() if axis else line.get_xdata()) for line in seeds] == [[-7, -5], [-1, 1], [-4, -2]]


@pytest.mark.parametrize("axis", ["dropout", ""])
def test_no_seed_lies_outside(axis):
    figure = plot_ablation(summary([arm("0.1", [30.0, 50.0, 10.0]), arm("0.2", [31.0, 29.0])], axis))
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = sorted(axes.get_ylim() if axis else axes.get_xlim())
    assert low < -20
    assert high > 20


def test_without_the_reference_scores_are_shown():
    ours, paper = plot_ablation(summary(ARMS[:1] + ARMS[2:])).axes
    assert marks(ours, OURS, False) == [31.0, 34.0]
    assert marks(paper, PAPER, False) == [71.0, 43.5]
    assert ours.get_xlabel() == "Spearman ×100"


def test_only_numbers_are_joined_and_only_on_an_axis_of_numbers():
    def joined(axes):
        return [list(line.get_xdata()) for line in axes.lines if line.get_color() == OURS and len(line.get_xdata()) > 2]

    numbers = [arm(n, [v]) for n, v in (("0.0", 1.0), ("0.01", 2.0), ("0.1", 3.0), ("0.5", 2.0), ("fixed 0.1", 1.0))]
    (axes,) = plot_ablation(summary(numbers)).axes
    assert joined(axes) == [pytest.approx([-2, -1, -0.30103])]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.0", "0.01", "0.1", "0.5", "fixed 0.1"]
    (axes,) = plot_ablation(summary(numbers, axis="")).axes
    assert joined(axes) == []


def test_numbers_stand_at_their_logarithm_and_what_has_none_apart():
    names = ["0.0", "0.01", "0.1", "1", "fixed"]
    at = {n: p.at for n, p in zip(names, places(names), strict=True)}
    assert [at[n] for n in ("0.01", "0.1", "1")] == [-2, -1, 0]
    assert at["0.0"] < -2
    assert at["fixed"] > 0
    assert [p.joined for p in places(["none", "0", "0.1", "1"])] == [False, False, True, True]
    assert [p.at for p in places(["none", "0", "0.1", "1"])] == sorted(p.at for p in places(["none", "0", "0.1", "1"]))
    assert [p.at for p in places(["0", "1", "2"])] == [0, 1, 2]  # linear: 0 has its place
    assert [p.at for p in places(["-1", "1", "9"])] == [-1, 1, 9]
    assert [p.at for p in places(["2"])] == [2]
    assert len({p.at for p in places(["a", "nan", "0"])}) == 3


def test_a_text_is_named_in_words():
    assert plot_title(summary()) == "Dropout\nmini (embedded encoder), trained on nli triplets"
    assert shown_text("owner/name_of") == "owner/name_of"
    assert shown_text("wiki.txt") == "wiki"


def test_names_of_near_settings_do_not_stand_on_each_other():
    arms = [arm(n, [1.0]) for n in ("0.01", "0.1", "0.12", "0.13", "0.5")]
    figure = plot_ablation(summary(arms))
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    boxes = [t.get_window_extent() for t in labels]
    assert [t.get_text().strip() for t in labels] == [a["arm"] for a in arms]
    # a name that was moved down begins with empty lines: its last line alone is text
    shown = [b.shrunk(1, 0.9 / len(t.get_text().split("\n"))) for t, b in zip(labels, boxes, strict=True)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(shown, 2))


def test_no_room_is_left_empty_on_the_right():
    for axis in ("dropout", ""):
        figure = plot_ablation(summary(axis=axis))
        figure.draw_without_rendering()
        assert max(a.get_position().x1 for a in figure.axes) > 0.97
        x0, x1 = figure.axes[0].get_xlim()
        furthest = max(
            max(line.get_xdata())
            for line in figure.axes[0].lines
            if len(line.get_xdata()) and line.get_markersize() in (3.2, 5.5)
        )
        assert (x1 - furthest) / (x1 - x0) < 0.12

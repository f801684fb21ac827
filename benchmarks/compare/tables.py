"""A comparison's figures as tables in Markdown."""

from collections.abc import Sequence
from typing import Any


def tables(figures: dict[str, Any]) -> str:
    """Writes one table of all systems, then one of BLEU by length for each test set."""
    systems = figures["systems"]
    test_sets = next(iter(systems.values()))["test_sets"]
    return "\n".join([_overview(figures), *(_by_length(systems, name) for name in test_sets)])


def _overview(figures: dict[str, Any]) -> str:
    systems = figures["systems"]
    names = list(next(iter(systems.values()))["test_sets"])
    head = [
        "system",
        "parameters",
        "steps",
        "target tokens/s",
        "training s",
        "validation loss",
        f"s to loss {figures['target_loss']:.3f}",
        *(f"{measure} {name}" for name in names for measure in ("BLEU", "chrF")),
    ]
    rows = []
    for system, found in systems.items():
        reached = found["seconds_to_target_loss"]
        rows.append(
            [
                system,
                f"{found['parameters']:,}",
                f"{found['steps']:,}",
                f"{found['tokens_per_second']:,.0f}",
                f"{found['training_seconds']:,.0f}",
                f"{found['curve'][-1]['loss']:.3f}",
                "not reached" if reached is None else f"{reached:,.0f}",
                *(
                    f"{found['test_sets'][name][measure]:.1f}"
                    for name in names
                    for measure in ("bleu", "chrf")
                ),
            ]
        )
    return _markdown(head, rows)


def _by_length(systems: dict[str, Any], name: str) -> str:
    test_set = next(iter(systems.values()))["test_sets"][name]
    head = ["system"]
    for one in test_set["by_source_words"]:
        few = ", too few" if one["too_few"] else ""
        head.append(f"{one['words']} ({one['sentences']:,}{few})")
    rows = [
        [
            system,
            *(
                "-" if one["bleu"] is None else f"{one['bleu']:.1f}"
                for one in found["test_sets"][name]["by_source_words"]
            ),
        ]
        for system, found in systems.items()
    ]
    cut = test_set["sentences_cut"]
    title = f"BLEU on {name} by words of the source (number of sentences)"
    return f"\n{title}; {cut:,} cut into pieces:\n\n{_markdown(head, rows)}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))

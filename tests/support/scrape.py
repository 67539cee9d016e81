"""Scrape a process, as Prometheus does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.support.http import fetch


class Scrape:
    """The samples of one scrape."""

    def __init__(self, url: str) -> None:
        self.text = fetch(f"{url}/metrics").text
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples of a name with these labels; None: there is none."""
        found = [each.value for each in self._samples if each.name == name and labels.items() <= each.labels.items()]
        return sum(found) if found else None

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {sample.name for sample in self._samples}

    @property
    def labels(self) -> dict[str, set[str]]:
        """The names of labels, by the name of the metric."""
        return {
            name: {label for sample in family.samples for label in sample.labels} - {"le"}
            for name, family in self.families.items()
        }

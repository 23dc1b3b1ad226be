"""Routes out of LiteLLM's groups of models, fallbacks and aliases."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from producer.litellm_file import Loc, shown
from producer.litellm_notes import Notes
from producer.litellm_provider import text

CHAINS: Final = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")


class Routes:
    """Makes a route of each group. `groups`: models by model_name; `ids`: by their LiteLLM id."""

    def __init__(
        self, notes: Notes, groups: Mapping[str, Sequence[str]], ids: Mapping[str, str]
    ) -> None:
        self.notes = notes
        self.groups = groups
        self.ids = ids
        self.router = notes.section("router_settings")
        self.litellm = notes.section("litellm_settings")

    def make(self, cheapest: bool) -> dict[str, Any]:
        """Return the routes; `cheapest`: LiteLLM takes the cheapest of a group."""
        chains, defaults = self._fallbacks()
        routes: dict[str, Any] = {}
        for name, models in self.groups.items():
            chain = self._chain(name, chains, defaults)
            routes[name] = {"otherwise": chain}
            if not cheapest or len(models) == 1:
                continue
            if len(chain) == len(models):
                routes[name] = {"otherwise": {"models": chain, "choose": "cheapest"}}
            else:
                self.notes.note(
                    ("router_settings", "routing_strategy"),
                    f"route {shown(name)!r} has fallbacks, so its models keep their order",
                )
        aliases = self.router.get("model_group_alias")
        for alias, target in aliases.items() if isinstance(aliases, dict) else ():
            loc = ("router_settings", "model_group_alias", str(alias))
            group = text(target.get("model") if isinstance(target, dict) else target)
            if group not in self.groups or text(alias) is None:
                self.notes.note(loc, "is an alias of no model_name here: left out")
                continue
            if str(alias) in self.groups:
                self.notes.note(loc, "is a model_name, too: the alias counts, as in LiteLLM")
            routes[str(alias)] = {"otherwise": self._chain(str(group), chains, defaults)}
        if "default" in routes:
            what = "one is called default: requests that name no route take it"
            self.notes.note(("model_list",), what)
            return routes
        return {"default": dict(next(iter(routes.values()))), **routes}

    def _fallbacks(self) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
        """Return each kind's fallbacks by group, and those of groups that have none."""
        chains: dict[str, dict[str, list[str]]] = {kind: {} for kind in CHAINS}
        defaults: list[str] = []
        for section, settings in (
            ("router_settings", self.router),
            ("litellm_settings", self.litellm),
        ):
            for kind in CHAINS:
                for loc, name, targets in self._listed(settings.get(kind), (section, kind)):
                    found = self._targets(targets, loc)
                    if name == "*":
                        defaults += found
                    elif name in self.groups:
                        chains[kind].setdefault(name, []).extend(found)
                    else:
                        self.notes.note(loc, "is no model_name here: left out")
                if kind != "fallbacks" and settings.get(kind):
                    self.notes.note(
                        (section, kind),
                        "are in the routes after the other fallbacks, and serve any failure: a "
                        "request that is too long for a model, or that it declines, goes on",
                    )
            if settings.get("default_fallbacks") is not None:
                loc = (section, "default_fallbacks")
                defaults += self._targets(settings["default_fallbacks"], loc)
        return chains, defaults

    def _listed(self, given: object, loc: Loc) -> Iterator[tuple[Loc, str, object]]:
        """Yield each entry of a list of fallbacks: where it is, of whom, what they are."""
        if given is None:
            return
        for index, item in enumerate(given if isinstance(given, list) else [given]):
            if not isinstance(item, dict):
                self.notes.note((*loc, index), "must be a mapping of a model_name to a list")
                continue
            for name, targets in item.items():
                yield (*loc, index, str(name)), str(name), targets

    def _targets(self, targets: object, loc: Loc) -> list[str]:
        """Return what a list of fallbacks names: groups, or ids of deployments."""
        found: list[str] = []
        for index, target in enumerate(targets if isinstance(targets, list) else [targets]):
            name = text(target)
            if name is not None and (name in self.groups or name in self.ids):
                found.append(name)
            else:
                self.notes.note((*loc, index), "is no model_name here: left out")
        return found

    def _chain(
        self, name: str, chains: Mapping[str, Mapping[str, list[str]]], defaults: Sequence[str]
    ) -> list[str]:
        """Return a group's models and then all that it falls back to.

        LiteLLM goes on from a fallback to that one's own; here these come after the listed ones.
        """
        seen: list[str] = []
        models: list[str] = []
        waiting = [name]
        while waiting:
            group = waiting.pop(0)
            if group in seen:
                continue
            seen.append(group)
            models += self.groups[group] if group in self.groups else [self.ids[group]]
            own = [each for kind in CHAINS for each in chains[kind].get(group, ())]
            waiting += own if chains["fallbacks"].get(group) else [*defaults, *own]
        return list(dict.fromkeys(models))

"""What the panel does to see why: which maps a model shows, recording them, laying two of them over the image.

Everything recorded lies in the scene, so that a scene that was saved shows its maps, passports and tables again where
the model is not installed. Large results come in one map or table at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from LKSegmentLib.engine.results import InspectResult, ReachResult
from LKSegmentLib.errors import InputError
from LKSegmentLib.inspection import Map, Table
from LKSegmentLib.inspection.maps import SENTENCE
from LKSegmentLib.inspection.probe import values_at
from LKSegmentLib.packages.catalogue import Entry
from LKSegmentLib.packages.faithfulness import faithfulness_of
from LKSegmentLib.prompts import Point
from LKSegmentLib.scene import map_nodes, overlays, tables
from LKSegmentLib.scene.core import Node, SceneContext, is_in_scene
from LKSegmentLib.scene.passport_words import about_entry, in_a_line, in_words
from LKSegmentLib.scene.requests import SceneRequests
from LKSegmentLib.scene.state import PanelState
from LKSegmentLib.scene.translation import _
from LKSegmentLib.scene.volumes import grid_of

__all__ = ["AT_CROSSHAIR", "SENTENCE", "Exposure", "InspectionSession"]

REACH = "reach"
AT_CROSSHAIR = "values at the crosshair"
_COMPANION = ": window disagreement"


class Exposure(NamedTuple):
    """One thing that a model can show, for a list with boxes to tick. `about` is its tooltip."""

    name: str
    words: str
    about: str
    group: str
    is_table: bool


class InspectionSession:
    """The part of a `PanelSession` that looks inside. It never waits for the worker.

    Attributes:
        typed: a further map, such as one channel: "NAME #5".
    """

    def __init__(self, context: SceneContext, state: PanelState, requests: SceneRequests) -> None:
        self.context = context
        self.state = state
        self.typed = ""
        self._requests = requests
        self._listed: dict[str, dict[str, Any]] = {}
        self._asked: str | None = None
        self._arriving: list[Callable[[], None]] = []
        self._is_left = False
        self._is_stale = False

    # what a model can show --------------------------------------------------------------------------------

    def ask(self, model: str) -> None:
        """Ask the worker what a model can show, unless that is known or on its way."""
        if model and model not in self._listed and model != self._asked:
            self._requests.abandon("exposed")
            self._requests.exposed(model)
            self._asked = model

    def forget(self) -> None:
        """A fresh worker may see other models: ask again."""
        self._listed, self._asked = {}, None

    def exposures(self, model: str) -> list[Exposure]:
        """What the model can show; empty while that is not known."""
        return [
            Exposure(
                str(entry["name"]), str(entry["words"]), about_entry(entry), str(entry["group"]),
                entry["extent"] not in ("voxels", "window"),
            )
            for entry in self._listed.get(model, {}).get("entries", [])
        ]  # fmt: skip

    def chosen(self, model: str) -> list[str] | None:
        """What is to be recorded; None while neither the person nor the model has said."""
        names = self.state.chosen_maps(model)
        if names is None and model in self._listed:
            names = [str(entry["name"]) for entry in self._listed[model]["entries"] if entry["default"]]
        if self.typed.strip():
            names = [*(names or []), self.typed.strip()]
        return names

    def followed(self, model: str) -> tuple[str, ...] | None:
        """What is recorded with every click: the chosen maps, or None for all. Tables only come with `record`."""
        names = self.chosen(model)
        if names is None:
            return None
        apart = {one.name for one in self.exposures(model) if one.is_table or one.group != "recorded"}
        return tuple(name for name in names if name not in apart) or None

    # requests ---------------------------------------------------------------------------------------------

    def why_not(self, action: str, model: str, kind: str, points: Sequence[Point]) -> str:
        """What an action of `PanelSession.why_not` lacks, besides a volume and a model; "" when it can be done."""
        recorded = self.maps()
        if action == "record":
            nothing = str(self._listed.get(model, {}).get("nothing", ""))
            if nothing:
                return nothing
            if kind == "click" and not points:
                return _("The maps of this model depend on the clicks: place a point first.")
            return _("Choose a map to record first.") if self.chosen(model) == [] else ""
        if action == "reach":
            depends = kind == "click" and not points
            return _("The reach of this model depends on the clicks: place a point first.") if depends else ""
        if action == "restore":
            return "" if self.can_restore else _("The views are as you had them.")
        if action == "table":
            return "" if self.tables() else _("No table of this volume was recorded.")
        if action == "remove":
            something = map_nodes.maps_of(self.context, self.state.input_volume) or self.tables()
            return "" if something else _("Nothing of this volume was recorded.")
        if action == "second" and not self.has_two:
            return _("This version of Slicer shows one map at a time; two need Slicer 5.10.")
        follows = action == "overlay" and kind == "click"
        return "" if recorded or follows else _("No map of this volume was recorded: press 'Record' first.")

    def record(self, model: str, device: str, points: Sequence[Point]) -> str:
        """Ask for the answer with the chosen maps and tables. Raises InputError when the volume cannot be used."""
        self._requests.inspect(self.state.input_volume, model, device, self.chosen(model), points)
        return _("Recording maps...")

    def crosshair(self) -> tuple[float, float, float]:
        """Where the crosshair is, RAS mm. InputError when it is outside the input volume, or nowhere."""
        node, volume = self._crosshair_node(), self.state.input_volume
        if node is None or volume is None:
            raise InputError(_("There is no crosshair: open a slice view and move it with Shift and the mouse."))
        r, a, s = (float(value) for value in node.GetCrosshairRAS())
        if not grid_of(volume).contains((r, a, s)):
            raise InputError(
                _(
                    "The crosshair at RAS ({place}) mm is outside the volume '{name}': hold Shift and move the mouse "
                    "over it in a slice view."
                ).format(place=f"{r:.0f}, {a:.0f}, {s:.0f}", name=volume.GetName())
            )
        return r, a, s

    def reach(self, model: str, device: str, points: Sequence[Point]) -> str:
        """Ask from where the answer at the crosshair comes. Raises InputError as `crosshair`."""
        self._requests.reach(self.state.input_volume, model, device, self.crosshair(), points)
        return _("Computing the reach at the crosshair...")

    def probe(self) -> Table:
        """The value of every recorded map at the crosshair, also as a table and a plot of the scene.

        Raises InputError as `crosshair`, and where no map was recorded.
        """
        image, place = self.state.input_volume, self.crosshair()
        nodes = self.maps()
        if not nodes:
            raise InputError(_("No map of this volume was recorded: press 'Record' first."))
        found = values_at([map_nodes.map_of(node, copy=False) for node in nodes], place)
        tables.add_table(self.context, replace(found, name=AT_CROSSHAIR), image)
        return found

    def _crosshair_node(self) -> Node | None:
        return self.context.scene.GetSingletonNode("default", "vtkMRMLCrosshairNode")

    # answers ----------------------------------------------------------------------------------------------

    def take_listing(self, listing: Mapping[str, Any], model: str) -> None:
        """What a model can show has come."""
        self._listed[model], self._asked = dict(listing), None

    def listing_failed(self, model: str) -> None:
        """It did not come; it is not asked for again by itself, but for another model it is."""
        self._listed.setdefault(model, {"entries": [], "nothing": "", "model": model})
        self._asked = None

    @property
    def is_arriving(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._arriving)

    def step(self) -> bool:
        """Bring the next map or table into the scene; True when there was one. Between two, the views are drawn."""
        if not self._arriving:
            return False
        self._arriving.pop(0)()
        return True

    def take(self, result: InspectResult | ReachResult, image: Node) -> str:
        """Queue what came for the scene, and say what it is."""
        self._is_stale = False
        if isinstance(result, ReachResult):
            self._queue([result.map], [], image, first=REACH)
            return result.sentence
        names = [one.name for one in result.maps if not one.name.endswith(_COMPANION)]
        shown = next((one.name for one in result.maps if not _is_apart(one.passport)), "")
        self._queue(result.maps, result.tables, image, first=shown)
        return _("Recorded maps: {maps}, tables: {tables}.").format(maps=len(names), tables=len(result.tables))

    def take_followed(self, result: InspectResult, image: Node) -> None:
        """The maps of a click, at once: they are small, and belong to the mask that is shown now."""
        self._is_stale = False
        for one in result.maps:
            map_nodes.map_node(self.context, one.name, one.volume, one.passport, image)
        self._choose_first(result.maps[0].name if result.maps else "", image)
        self.update()

    def _queue(self, maps: Sequence[Map], numbers: Sequence[Table], image: Node, first: str) -> None:
        identifier = image.GetID()

        def arrive(add: Callable[[Node], object]) -> None:
            node = self.context.scene.GetNodeByID(identifier)
            if node is not None:  # deleted meanwhile: its maps go with it
                add(node)

        def finish(node: Node) -> None:
            if first:
                self._choose_first(first, node, always=first == REACH)
                self.state.overlay_visible = True
            self.update()

        def add_map(one: Map) -> Callable[[Node], object]:
            return lambda node: map_nodes.map_node(self.context, one.name, one.volume, one.passport, node)

        def add_table(one: Table) -> Callable[[Node], object]:
            return lambda node: tables.add_table(self.context, one, node)

        for step in (*map(add_map, maps), *map(add_table, numbers), finish):
            self._arriving.append(lambda step=step: arrive(step))  # type: ignore[misc]

    def _choose_first(self, name: str, image: Node, always: bool = False) -> None:
        """Show this map in the first place, unless one is chosen there already."""
        found = next((node for node in map_nodes.maps_of(self.context, image) if _name(node) == name), None)
        if found is not None and (always or self.state.overlay not in self.maps()):
            self.state.overlay = found

    # over the image ---------------------------------------------------------------------------------------

    def maps(self) -> list[Node]:
        """The recorded maps that can be laid over the input volume."""
        nodes = map_nodes.maps_of(self.context, self.state.input_volume)
        return [node for node in nodes if not _is_apart(map_nodes.passport_of(node))]

    def tables(self) -> list[Node]:
        """The recorded tables."""
        return tables.tables_of(self.context, self.state.input_volume)

    @property
    def has_two(self) -> bool:
        """Whether this Slicer shows two maps at a time."""
        return overlays.has_further_layers(self.context)

    def choose_overlays(self, first: str, second: str) -> None:
        """Choose the maps of overlay A and B by name; "" for none."""
        by_name = {_name(node): node for node in self.maps()}
        with self.state.together():
            self.state.overlay = by_name.get(first)
            self.state.second_overlay = by_name.get(second)

    @staticmethod
    def name_of(node: Node) -> str:
        """What a map is called, in lists and in its passport."""
        return _name(node)

    def shown_names(self) -> tuple[str, str]:
        """The names of the maps chosen as overlay A and B; "" for none."""
        maps = self.maps()
        a, b = (node if node in maps else None for node in (self.state.overlay, self.state.second_overlay))
        return _name(a), _name(b)

    def update(self) -> None:
        """Show the chosen maps over the image as the state says, or put the slice views back."""
        maps, state = self.maps(), self.state
        chosen = [(state.overlay, state.overlay_opacity, state.overlay_hidden)]
        if self.has_two and state.second_overlay is not state.overlay:
            chosen.append((state.second_overlay, state.second_opacity, state.second_hidden))
        shown = [entry for entry in chosen if entry[0] in maps]
        if self._is_left or self._is_stale or not state.overlay_visible or not shown:
            overlays.hide(self.context)
            return
        for place, (node, _opacity, hidden) in enumerate(shown):
            display = map_nodes.display_from(map_nodes.passport_of(node), state.overlay_scale, hidden)
            if place and display.table == map_nodes.SEQUENTIAL:
                display = replace(display, table=map_nodes.SECOND)
            map_nodes.set_display(self.context, node, display)
        self._show_legend(shown[0][0])
        overlays.show(self.context, shown[0][0], shown[0][1], [entry[0] for entry in shown[1:]], shown[-1][1])

    def _show_legend(self, node: Node) -> None:
        red = self.context.scene.GetFirstNodeByName("Red")
        if is_in_scene(red) and red.IsA("vtkMRMLSliceNode"):
            map_nodes.add_legend(node, _name(node).partition(" (")[0], [red.GetID()])

    def enter(self) -> None:
        """The panel is open (again)."""
        self._is_left = False
        self.update()

    def leave(self) -> None:
        """The panel is left: the slice views are the user's own until `enter`."""
        self._is_left = True
        overlays.hide(self.context)

    def suspend(self) -> None:
        """The clicks that the maps belong to are gone: nothing is shown until something new is recorded or chosen."""
        self._is_stale = True
        overlays.hide(self.context)

    def resume(self) -> None:
        """Somebody chose what is shown."""
        self._is_stale = False
        self.update()

    @property
    def can_restore(self) -> bool:
        """Whether the views show something of ours."""
        return overlays.remembers(self.context) or tables.are_shown(self.context)

    def restore_layers(self) -> None:
        """Put every layer of the slice views, and the layout, back as they were before the first map was shown."""
        overlays.restore(self.context)
        tables.hide_from_views(self.context)
        self.state.overlay_visible = False

    def remove_recorded(self) -> str:
        """Remove the maps and tables of the input volume. The user's own volumes, segments and points stay."""
        overlays.hide(self.context)
        self._arriving = []
        image = self.state.input_volume
        maps = map_nodes.maps_of(self.context, image)
        for node in maps:
            self.context.remove_node(node)
        count = tables.remove_tables(self.context, image)
        with self.state.together():
            self.state.overlay = self.state.second_overlay = None
        return _("Removed maps: {maps}, tables: {tables}.").format(maps=len(maps), tables=count)

    # tables -----------------------------------------------------------------------------------------------

    def table_choice(self, current: str) -> tuple[list[tuple[str, str]], str]:
        """(title, name) of each table for a list, and the one to choose in it: the current one while it is there."""
        names = [str(node.GetAttribute(tables.TABLE_NAME)) for node in self.tables()]
        return [(name, name) for name in names], current if current in names else (names[0] if names else "")

    def show_table(self, name: str) -> None:
        """Show a table, and its plot where it is a curve, in Slicer's views."""
        node = next((one for one in self.tables() if one.GetAttribute(tables.TABLE_NAME) == name), None)
        if node is None:
            raise InputError(_("There is no table '{name}' any more.").format(name=name))
        self.mark_slices()
        tables.show_in_views(self.context, node)

    def slice_nodes(self, class_name: str = "vtkMRMLSliceNode") -> list[Node]:
        """The slice views, or with "vtkMRMLSliceCompositeNode" their layers."""
        scene = self.context.scene
        return [scene.GetNthNodeByClass(n, class_name) for n in range(scene.GetNumberOfNodesByClass(class_name))]

    def mark_slices(self) -> None:
        """Mark the row of the slice on screen in every table of slices."""
        views = self.slice_nodes()
        for node in self.tables():
            tables.mark_slice(node, views)

    # words ------------------------------------------------------------------------------------------------

    def passport_line(self) -> str:
        """What the numbers of overlay A (and B) are, in a line each."""
        chosen = [node for node in (self.state.overlay, self.state.second_overlay) if node in self.maps()]
        return "\n".join(in_a_line(_name(node), map_nodes.passport_of(node)) for node in chosen)

    def passport_details(self) -> str:
        """The whole passport of overlay A, a line an entry."""
        node = self.state.overlay
        if node not in self.maps():
            return ""
        return "\n".join(f"{key}: {in_words(value)}" for key, value in map_nodes.passport_of(node).items())

    def faithfulness(self, models: Mapping[str, Entry]) -> str:
        """What was measured of the map of overlay A; that nothing was, or that it cannot be known here."""
        node = self.state.overlay
        if node not in self.maps():
            return ""
        passport = map_nodes.passport_of(node)
        if passport.get("kind") in ("gradient", "disagreement of windows"):
            return ""
        model = str(passport.get("model", ""))
        if model not in models:
            return _(
                "The model '{name}' is not installed here: whether this map is faithful to it is not known, and no "
                "further maps of it can be recorded."
            ).format(name=model)
        told = faithfulness_of(models[model].manifest, _name(node))
        return told or _("Whether this map is faithful was never measured for this model.")

    def on_scene_closing(self) -> None:
        """Nothing that is still on its way belongs to the next scene."""
        self._arriving = []
        self._is_stale = False

    def follow_views(self) -> None:
        """The views have changed: rows of slices are marked, and opacities that Slicer does not save are noted."""
        self.mark_slices()
        overlays.note_opacities(self.context)

    def on_scene_loaded(self) -> None:
        """Further layers get the opacities that were noted before the scene was saved."""
        overlays.restore_opacities(self.context)


def _name(node: Node | None) -> str:
    return str(node.GetAttribute(map_nodes.MAP_NAME)) if node is not None else ""


def _is_apart(passport: Mapping[str, Any]) -> bool:
    """Whether a map has no place in the image: kernels are drawn in a space of their own."""
    return passport.get("space") == "kernel"

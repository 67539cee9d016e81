"""The focus: what is around one node."""

from playwright.sync_api import expect

from dagorama.models.state import State
from tests.dashboard.browser.examples import FLOW, diamond, fan
from tests.dashboard.browser.graph_page import GraphPage

PLACES = """Object.fromEntries([...document.querySelectorAll(".g-card")].map(
  (card) => [card.textContent, card.style.transform]))"""


def place(graph: GraphPage, text: str) -> tuple[float, float]:
    box = graph.page.locator(".g-card", has_text=text).bounding_box()
    assert box is not None
    return box["x"], box["y"]


def test_sources_are_above_dependents_below_and_the_creator_is_left(graph: GraphPage) -> None:
    graph.open(diamond(), "focus", node=3)
    x, y = place(graph, "Flow.left")
    assert place(graph, "Flow.first")[1] < y < place(graph, "Flow.join")[1]
    assert place(graph, "Flow.entrypoint")[0] < x
    assert graph.page.locator("[aria-current]").inner_text() == "●\nFlow.left\n#3 · done · 6 ms"


def test_children_are_right_and_those_that_are_alike_are_a_stack(graph: GraphPage) -> None:
    graph.open(fan(997), "focus", node=1)
    stack = graph.page.locator(".g-stack", has_text="queued")
    assert place(graph, "queued")[0] > place(graph, "Flow.entrypoint")[0]
    assert stack.locator(".g-total").inner_text()[1:] == "491"
    assert graph.page.locator(".g-card").count() < 10
    # The table above may still arrive and move the drawing, so that a mouse would miss the card.
    stack.get_by_role("link").press("Enter")
    graph.page.wait_for_url("**/instances/made-up?view=table&function=flow%3AFlow.work&state=queued")


def test_cards_do_not_move_under_a_pressed_button(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made, "focus", node=3)
    x, y = place(graph, "Flow.join")
    before = graph.model(PLACES)
    graph.page.mouse.move(x + 20, y + 20)
    graph.page.mouse.down()
    graph.model("(view.context.select(1), view.show())")
    assert graph.model(PLACES) == before
    graph.page.mouse.up()
    expect(graph.page.locator("[aria-current]")).to_contain_text("Flow.join")


def test_a_card_becomes_the_centre(graph: GraphPage) -> None:
    graph.open(diamond(), "focus", node=3)
    graph.page.get_by_role("link", name="Flow.join").click()
    expect(graph.page.locator("[aria-current]")).to_contain_text("Flow.join")
    assert "view=focus" in graph.page.url
    assert "node=5" in graph.page.url
    graph.page.get_by_role("link", name="Open node 5").click()
    graph.page.wait_for_url(f"{graph.site.url}/instances/made-up/5")


def test_cards_keep_their_places_when_the_graph_grows(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made, "focus", node=2)
    before = graph.model(PLACES)
    added = made.add(FLOW + "late", 2, creator=1, sources=(2,), state=State.QUEUED)
    graph.site.tell("nodes", made.change(list(added)))
    expect(graph.page.locator(".g-card", has_text="Flow.late")).to_have_count(2)
    after = graph.model(PLACES)
    assert {name: after[name] for name in before} == before
    assert len(set(after.values())) == len(after)


def test_the_focus_has_a_bound(graph: GraphPage) -> None:
    made = diamond()
    for number in range(400):
        made.add(f"{FLOW}step{number}", sources=(len(made.nodes),), state=State.WAITING)
    graph.open(made, "focus", node=200)
    expect(graph.page.locator(".g-card")).to_have_count(150)
    expect(graph.page.locator(".g-notice")).to_have_text("The 150 boxes nearest to node 200.")


def test_a_node_is_chosen_by_its_number(graph: GraphPage) -> None:
    graph.open(diamond(), "focus")
    # The first that runs, if none has failed.
    expect(graph.page.locator("[aria-current]")).to_contain_text("#4")
    number = graph.page.get_by_label("Node", exact=True)
    number.fill("5")
    number.press("Enter")
    expect(graph.page.locator("[aria-current]")).to_contain_text("#5")
    number.fill("99")
    number.press("Enter")
    expect(graph.page.locator(".g-notice")).to_have_text("There are nodes 1 to 5.")


def test_an_update_does_not_overwrite_a_number_that_is_being_typed(graph: GraphPage) -> None:
    made = diamond()
    graph.open(made, "focus", node=4)
    number = graph.page.get_by_label("Node", exact=True)
    number.fill("5")
    graph.site.tell("nodes", made.set(4, State.COMPLETED))
    expect(graph.page.locator("[aria-current]")).to_contain_text("done")
    expect(number).to_have_value("5")

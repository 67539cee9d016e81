"""The forbidden phrases: a pattern, what to write instead, a sentence that it finds and one that it must not find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.prose.texts import COMMENT, DOCSTRING, MESSAGE, PAGE

PROSE = (DOCSTRING, COMMENT, MESSAGE, PAGE)

#: The beginning of a sentence: of the text, a paragraph, an item, a heading or a cell, or after another sentence.
START = r"(?:\A\s*|[.!?][\"')*]*\s+|\n\s*\n\s*|\n\s*(?:[-*+]|\d+\.|\#+|>)\s+|\|\s*|^\s*(?:[-*+]|\#+)\s+|\*\*)"
#: The end of a clause: a sign, the end of the text, or a word that begins another clause.
END = r"(?=\s*[.,;:)\]|]|\s*\Z|\s+(?:and|or|but|if|when|once|because|after|before|until|while|by|in|on|at|to|for)\b)"

#: After these words *where* speaks of a place.
PLACES = tuple(
    re.findall(
        r"\S+",
        """
        place places folder folders directory file files path paths position point points line lines machine
        machines host address addresses column row rows table page process processes section module modules
        location locations home room know knows known say says said tell tells told show shows see seen find finds
        found look looks decide decides from to of is are was and or, exactly just somewhere anywhere everywhere
        only remember describe describes written environment environments systems system platforms platform state
        states stage moment case cases mean means
        """,
    )
)

#: Before these words too: `where it runs`, `where the class is made`.
AT = (
    r"(?:(?: \w+){0,4} (?:runs?|ran|stands?|lies|lives|belongs|happens|begins?|began|stopped|goes)|(?: \w+)? "
    r"(?:is|was|are|were) (?:called|found|made|created|defined|awaited|put|written|raised|used|needed|stored|read|"
    r"shown|checked|told))\b"
)


@dataclass(frozen=True)
class Pattern:
    """A phrase to avoid."""

    phrase: str  #: a regular expression; if it has a group, the group is what is reported
    instead: str
    finds: str
    passes: str
    kinds: tuple[str, ...] = PROSE
    not_after: tuple[str, ...] = ()  #: words before which the phrase is good English

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.phrase.replace(" ", r"\s+"), re.MULTILINE)

    def find(self, kind: str, words: str) -> Iterator[tuple[int, int]]:
        """Yield the places of the phrase in a text of this kind."""
        if kind in self.kinds:
            for match in self._compiled.finditer(words):
                start, end = match.span(match.lastindex or 0)
                if not (self.not_after and self._is_after(words[:start])):
                    yield start, end

    def _is_after(self, before: str) -> bool:
        word = re.search(r"([A-Za-z]+,?)\W*\Z", before[-40:])
        return word is not None and word[1].lower() in self.not_after


def _word(word: str, instead: str, finds: str, passes: str) -> Pattern:
    """Describe a private word. A word within a path or a dotted name is a name and stays."""
    return Pattern(rf"(?<![\w./-])(?:{word})(?![\w/]|-\w|\.\w|\()", instead, finds, passes)


ENGLISH = (
    Pattern(
        r"\b([Ww]here (?:it|there|one|an?|the|no|none|nothing|nobody|they|this|that|these|those|some|all|any|both|each|"
        rf"either|every|its?|you|we|he|something|someone|somebody|another|others|more|neither|what|such|only)\b)(?!{AT})",
        "write `if`, or `when`",
        "It raises NotKnown where the broker has no such node.",
        "Say where the broker is, in the folder where it keeps values; an error is raised where the class is made.",
        not_after=tuple(PLACES),
    ),
    Pattern(
        r"\b(?:[Ww]ho|[Ww]hat|[Ww]here|[Ww]hich|[Ww]hom)(?:so)?ever\b",
        "name the person or thing: `a caller that ...`, `any value`, `everywhere`",
        "It is told to whoever asks.",
        "It is told to every caller, however late.",
    ),
    Pattern(
        r"\b[Nn]obody\b",
        "name what is absent: `no worker`, `no caller`, `unreferenced`",
        "A value that nobody names is removed.",
        "Nothing is removed while any body of a message names it.",
    ),
    Pattern(
        rf"{START}(What\b)(?![^.!?]*\?)",
        "begin with the noun: `Unstarted nodes are dropped`",
        "It is so. What runs is told.",
        "What is a node? A call. It says what it is.",
    ),
    Pattern(
        r"; (what\b)(?! (?:happens|if|is it|are they)\b)",
        "begin with the noun: `; running nodes are signalled`",
        "They stay; what runs is told.",
        "They stay; this is what runs: what is left of it.",
    ),
    Pattern(
        rf"{START}(Who\b)(?![^.!?]*\?)",
        "begin with the noun: `A client that ...`",
        "Who does not read is not listened to.",
        "Who reads it? It says who called.",
    ),
    Pattern(
        rf"{START}((?!This|That|Here|There|Instead|Indeed|Need|Speed|Seed)[A-Z]\w*(?:ed|en|un) (?:is|are|was|were)\b)"
        r"(?= (?:what|who|that|which|the|a|an|all)\b|:)",
        "put the subject first: `Cancelled nodes cannot be retried`",
        "Refused is what was cancelled.",
        "Calls are refused. Here are the calls that are refused.",
    ),
    Pattern(
        rf"\b(?:no|any) more\b{END}",
        "write `no longer`, `any longer`, or leave it out",
        "It is held no more.",
        "It takes no more nodes, and no more than ten workers.",
    ),
    Pattern(
        r"\b(?:is|are|was|were|has|have|had) (?:not |then |only )?to be\b",
        "write `must be`, or an instruction: `call put() again`",
        "The value is to be put again.",
        "The value ought to be put again; it is best to be sure.",
    ),
    Pattern(
        r"\bso many\b(?! \w+ that\b)",
        "name the quantity: `after `timeout` seconds`",
        "It ends after so many seconds.",
        "It has so many nodes that a message cannot hold them, and many more.",
    ),
    Pattern(r"\banew\b", "write `again`", "It is read anew.", "It is a new one, from a newer version."),
    Pattern(r"\bfor ever\b", "write `forever`", "It waits for ever.", "It waits forever, for every node."),
    Pattern(
        r"\b(?:comes?|came|coming) to nothing\b",
        "write `fails`, `is rolled back`",
        "The attempt comes to nothing.",
        "It comes to the end, and nothing is left.",
    ),
    Pattern(
        r"\b[Bb]eside\b",
        "write `next to`, or `in addition to`",
        "The log lies beside the file.",
        "Besides the log there is a file.",
    ),
    Pattern(
        r"\b(?:that|those) of\b(?! course)",
        "repeat the noun: `the queue of the function`",
        "The queue is that of the function.",
        "It is clear that often one of those nodes runs.",
    ),
    Pattern(
        r"\bthat which\b|\bthose (?:that|which|who|whose)\b",
        "repeat the noun: `the nodes that`",
        "It ends those that are left.",
        "It ends the nodes that are left, those with a value, and says that whichs are not words.",
    ),
    Pattern(
        r"\bwhat of (?:it|them|this|that|these|those)\b",
        "name it: `unfinished nodes`",
        "It cancels what of them is unfinished.",
        "It cancels what is left of them.",
    ),
    Pattern(
        r"\b(?:is|are|was|were|be) of(?=\s*[.,;:)\]]|\s*\Z)",
        "turn the sentence: `the instance of the node`",
        "It names the instance that they are of.",
        "It names the instance that they are part of.",
    ),
    Pattern(
        r"\b(?:be it|there(?:of|upon|by|in)|here(?:of|by|in)|where(?:of|upon|by|in)|hence|thence)\b",
        "write today's word: `of it`, `then`, `so`",
        "The nodes and the values thereof are kept.",
        "There of all places, henceforth: may it be kept, and there in the table.",
    ),
    Pattern(
        r"\A\s*((?:And )?[Tt]he same\b)",
        "say what it does: `Call the async function and return its promise.`",
        "The same for an async function.",
        "Return the same promise.",
        kinds=(DOCSTRING,),
    ),
    Pattern(
        r"\A\s*(Of |\.\.\.|…)",
        "begin with a verb or a noun: `Return the nodes that ...`",
        "Of which nothing is known yet.",
        "Offer the node to a worker ...",
        kinds=(DOCSTRING,),
    ),
    Pattern(
        r"\n\s*\n\s*(return \w+\([^\n]*\))",
        "remove the statement from the docstring",
        "Start it.\n\nreturn Started(definition)",
        "Start it.\n\nThen return the instance, or return none (see below).",
        kinds=(DOCSTRING,),
    ),
    Pattern(
        r"\A\s*((?!gRPC|dagorama|pip|x{2})[a-z]\w*)",
        "begin with a capital letter, and write a full sentence",
        "what is left of it.",
        "gRPC in, gRPC out.",
        kinds=(DOCSTRING,),
    ),
    Pattern(
        r"\A(?!\s*\Z)(?:(?!\n[ \t]*\n)[\s\S])*?([^\s.!?:]\S*)(?<![.!?:`\"'])[ \t]*(?=\n[ \t]*\n|\n?[ \t]*\Z)",
        "end the first paragraph with a period",
        "Return the node",
        "Return the node, or None if there is none.",
        kinds=(DOCSTRING,),
    ),
)

PRIVATE = (
    _word("heart", "write `scheduler`", "The heart decides.", "src/heart: the heartbeat of the worker."),
    _word("[Ss]pawners?", "write `client`", "A spawner submits.", "The server spawns processes."),
    _word("[Bb]roods?", "write `children of an eager attempt`", "A brood ends.", "They brooded over a.brood."),
    _word(
        "[Nn]urser(?:y|ies)", "write `fork server`", "The nursery forks.", "The nurse forks; see worker/nursery for it."
    ),
    _word("[Ll]anes?", "write `queue`, or `async runner`", "It stays in its lane.", "The planes stay in queue.lane."),
    _word("[Cc]ulprits?", "write `root cause`, or `failed node`", "It names the culprit.", "It reads node.culprit."),
    _word("[Mm]anners?", "write `configuration`", "It says its manners.", "It settles options.manners here."),
    _word("[Mm]enus?", "write `candidates`", "It is on the menu.", "It has assignment.menu in it."),
    _word("[Ff]ates?", "write `state`, or `outcome`", "It decides their fate.", "It is fatal for row.fate then."),
    _word("[Ee]pitaphs?", "write `failure message`", "Its epitaph is kept.", "It calls graph.epitaph then."),
    _word("[Ss]hel(?:f|ves)", "write `cache`", "It is on the shelf.", "It runs itself, in a shell."),
    _word("[Dd]oors?", "write `interceptor`, or `way`", "The door finds it.", "It is indoors, says access.door too."),
    _word("[Bb]ells?|[Bb]reath", "name the quantity or the pipe", "The bell rings.", "Labelled and breathing."),
    _word("[Kk]nots?", "write `cycle`", "They form a knot.", "They do not form a cycle."),
    _word(
        "[Bb]ur(?:y|ies|ied|ial)|[Mm]ourns?|[Ss]tillborn|[Ff]orsak(?:e|es|en|ing)|[Ff]orsook",
        "write `abort`, `remove`, `exited`",
        "The child is buried.",
        "The child is busy.",
    ),
    _word("[Hh]ungry|[Rr]oomy|[Ll]aden", "write `idle`, `with room`, `loaded`", "A hungry slot.", "A laden_slot name."),
    Pattern(
        r"\b[Tt]he original(?:'s\b|(?=\s*[.,;:)\]]|\s*\Z| (?:is|was|has|had|did|does|meant|which|where|and|or|in|of|to|"
        r"client|broker|library|calls?|worlds?|workers?|programs?)\b))",
        "write `dagorama 0.1.10`, or `legacy`",
        "It is served to the original's workers.",
        "It raises the original exception with its original arguments.",
    ),
    Pattern(
        r"\b(?:[Tt]he|[Oo]ur|[Tt]his) house\b",
        "write `the layout`, `the project`",
        "The house has rooms.",
        "The household has rooms.",
    ),
    Pattern(
        r"\b(?:[Tt]wo|[Bb]oth|other|[Oo]ur|its|another) worlds?\b",
        "write `protocol`",
        "Two worlds share a broker.",
        "Two protocols share a broker, in the whole world.",
    ),
)

PATTERNS = (*ENGLISH, *PRIVATE)

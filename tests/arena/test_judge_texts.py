"""What judges write and what a careful reader takes from it: never another score, and the score where it can be told.

Self-made, in the manner of what models write. A row has a text and the scores that are right for it; None is missing.
"""

import time

import pytest
from support.cases import cases

from sparta.arena.votes import after_thinking, parse_score

N = None

# Structure before numbers: an object counts as a whole, and nothing inside its values.
OBJECTS = [
    ('{"score": 8, "reason": "not worth a 1/10"}', (8,)),
    ('{"score": 8, "aspects": {"style": {"score": 2}}}', (8,)),
    ('{"aspects": {"style": {"score": 2}}, "score": 8}', (8,)),
    ('{"aspects": [{"name": "style", "score": 2}, {"name": "facts", "score": 9}], "score": 8}', (8,)),
    ('{"reason": "Score: 3 would be unfair", "score": 7}', (7,)),
    ('{"reason": "it says {\\"score\\": 10}", "score": 4}', (4,)),
    ("{'reason': 'they say score: 10', 'score': 4}", (4,)),
    ('{"reason": "line one\nScore: 2\nline three", "score": 6}', (6,)),
    ('{"reasoning": "He wrote "score: 9" there", "score": 4}', (4, N)),
    ('{"score": 7, "confidence": 0.9}', (7,)),
    ('{"score": 7, "scale": "1-10"}', (7,)),
    ('{"score": 4, "scale": "1-5"}', (N,)),
    ('{"score": 7, "max_score": 100}', (N,)),
    ('{"score": 7, "out_of": 20}', (N,)),
    ('{"score": 7, "final_score": 5}', (N,)),
    ('{"score": 7, "final_score": 7}', (7,)),
    ('{"score": 7, "score": 3}', (N,)),
    ('{"score": "8 out of 10"}', (8,)),
    ('{"score": "7-8"}', (N,)),
    ('{"score": "~7"}', (N,)),
    ('{"score": "7/100"}', (N,)),
    ('{"score": true}', (N,)),
    ('{"score": [7, 8]}', (N,)),
    ('{"score": {"value": 7}}', (N, 7)),
    ('{"score": -7}', (N,)),
    ('{"score": 7e-1}', (N,)),
    ('{"score": 1e1}', (N, 10)),
    ('{"score": 0x8}', (N,)),
    ('{"score": "NaN"}', (N,)),
    ('{"score": Infinity}', (N,)),
    ('[{"score": 9}, {"score": 3}]', (N,)),
    ('[{"score": 7}]', (7,)),
    ('[{"criterion": "facts", "score": 9}, {"criterion": "overall", "score": 6}]', (6,)),
    ('{"criterion": "facts", "score": 9}\n{"criterion": "style", "score": 3}', (N,)),
    ('{"criterion": "facts", "score": 9}\n{"score": 5}', (5,)),
    ('```json\n{\n  "score": 7,\n  "reason": "2/10 for style"\n}\n```', (7,)),
    ('Here is my evaluation:\n```json\n{"score": 7}\n```\nLet me know!', (7,)),
    ('json\n{"score": 7}', (7,)),
    ("{score: 7}", (7,)),
    ('{"score":7}\n{"score":7}', (7,)),
    ('{"score": 3}\n\nActually, the code runs. {"score": 8}', (8,)),
    ('{"score": 8}\n\nWait, I misread it. Score: 3', (3,)),
    ('{"score": 8}\nScore: 3', (N,)),
    ('{"score": 8}\n\nScore: 8/10', (8,)),
    ('{"score": 8}\nHold on, the last step is wrong.', (N,)),
    ('{"scores": {"a": 3}, "score": 6}', (6,)),
    ('{"response_score": 3}', (N,)),
    ('{"Score": "9"}', (9,)),
    ('{"SCORE": 9}', (9,)),
    ('{ "score" : 9 , }', (9,)),
    ('{"score": 9; "x": 1}', (N, 9)),
    ('{"score": 9 /* good */}', (N, 9)),
    ('{"score": 9} # good', (9,)),
    ('\\{"score": 9\\}', (N, 9)),
    ('{"score": 9', (N,)),
    ('{"score": 9, "reason": "The response', (9,)),
    ('{"reason": "It is worth 9/10 and score: 9', (N,)),
    ('Score: 3\n{"reason": "a', (N, 3)),
]

# `Score: 8` and its like, its scales, ranges, criteria, headings and tables; what is struck out.
PROSE = [
    ("**Final Score: 8/10**", (8,)),
    ("### Score: 8", (8,)),
    ("Score - 8", (N, 8)),
    ("Score: 8/10 (very good)", (8,)),
    ("Score: 8/10. The style is 3/10.", (8,)),
    ("Score: 8. I would not give it a 3/10.", (8,)),
    ("My score: 8", (8,)),
    ("My final score is 8.", (8, N)),
    ("I would give this response a score of 8 out of 10.", (8, N)),
    ("I give it a score of 8.", (8, N)),
    ("The response deserves a score of 7.5", (7.5, N)),
    ("Score: 7.5", (7.5,)),
    ("Score: 7,5", (N, 7.5)),
    ("Score: 7.", (7,)),
    ("Score: 7.0/10.0", (7,)),
    ("Score: 7 / 10", (7,)),
    ("Score: 4/5", (N, 8)),
    ("Score: 4 out of 5", (N, 8)),
    ("Score: 4 (out of 5)", (N, 8)),
    ("Score (1-5): 4", (N,)),
    ("Score (0-100): 8", (N,)),
    ("Score: 85%", (N, 8.5)),
    ("Score: 8 on a scale of 1 to 10", (8,)),
    ("Score: 4 on a scale from 1 to 5", (N,)),
    ("On a scale of 1 to 5, score: 4", (N,)),
    ("On a scale from 1 to 10, I give it a score of 8.", (8, N)),
    ("Score: between 6 and 7", (N,)),
    ("Score: 6 or 7", (N,)),
    ("Score: 6~7", (N,)),
    ("Score: 6–7", (N,)),
    ("Score: 6 to 7", (N,)),
    ("Score: 6, maybe 7", (N,)),
    ("Score: 6 (or 7)", (N,)),
    ("Score: 6 (maybe 7)", (N,)),
    ("Score: 6-ish", (N, 6)),
    ("Score: 6+", (N, 6)),
    ("Score: >6", (N,)),
    ("Score: ≥ 6", (N,)),
    ("Score: at least 6", (N,)),
    ("Score: < 3", (N,)),
    ("Score: -3", (N,)),
    ("Score: 3k", (N,)),
    ("Score: 7th", (N,)),
    ("Score: 1.5e1", (N,)),
    ("Score: 2^3", (N, 8)),
    ("Score: 10^1", (N, 10)),
    ("Score: 5+3", (N, 8)),
    ("Score: 10 - 2 = 8", (N, 8)),
    ("Score: 10 minus 2", (N, 8)),
    ("Score: 10 / 10", (10,)),
    ("Score: 0/10", (N,)),
    ("Score: 11/10", (N,)),
    ("Score: A", (N,)),
    ("Score: ten", (N, 10)),
    ("Score: VIII", (N, 8)),
    ("Score: ⑧", (N, 8)),
    ("Score: 8️⃣", (N, 8)),
    ("Score: ８／１０", (N, 8)),
    ("Score: 1\u200b0", (N, 10)),
    ("Score: 1\xad0", (N, 10)),
    ("Score: \u202e01", (N, 1, 10)),
    ("Score: $\\boxed{8}$", (8, N)),
    ("Score: \\frac{8}{10}", (8, N)),
    ("$\\boxed{8/10}$", (8, N)),
    ("Score: `8`", (8,)),
    ('Score: "8"', (8,)),
    ("Score: '8'", (8,)),
    ("Score: [8]", (8,)),
    ("Score: <8>", (N, 8)),
    ("<score>8</score>", (8, N)),
    ("<score>8/10</score>", (8, N)),
    ("<style_score>3</style_score><score>8</score>", (8, N)),
    ("Style score: 3", (N, 3)),
    ("Style score: 3\nFacts score: 9", (N,)),
    ("Score: 6\nStyle score: 3", (6,)),
    ("Overall: 6/10\nStyle: 3/10", (6,)),
    ("Accuracy: 9/10\nStyle: 3/10", (N,)),
    ("Accuracy: 9/10\nStyle: 3/10\nOverall: 6/10", (6,)),
    ("- Accuracy: 9/10\n- Style: 3/10\n\n**Overall score: 6/10**", (6,)),
    ("Accuracy: 9\nStyle: 3\nScore: 6", (6,)),
    ("## Accuracy\nScore: 9\n## Style\nScore: 3", (N,)),
    ("## Accuracy\nScore: 9\n## Style\nScore: 3\n## Overall\nScore: 6", (6,)),
    ("**Accuracy**\nGood.\nScore: 9\n\n**Style**\nPoor.\nScore: 3\n\n**Overall**\nScore: 6", (6,)),
    ("1. Accuracy:\nScore: 9\n2. Style:\nScore: 3", (N,)),
    ("## Evaluation\nThe response is right.\n\nScore: 9", (9,)),
    ("Initial score: 5\nFinal score: 7", (7,)),
    ("Final score: 7\nInitial score: 5", (7,)),
    ("Maximum score: 10\nScore: 7", (7,)),
    ("Score: 7\nMaximum score: 10", (7,)),
    ("The maximum score is 10.", (N,)),
    ("The highest possible score is 10. I give it 6/10.", (6,)),
    ("A perfect score: 10 is not deserved.", (N,)),
    ("| Aspect | Score |\n|---|---|\n| Facts | 9 |\n| Style | 3 |", (N,)),
    ("| Facts | Style | Overall |\n|---|---|---|\n| 9/10 | 3/10 | 6/10 |", (N, 6)),
    ("| Score | 8/10 |", (8, N)),
    ("| Overall | 8/10 |\n| Style | 2/10 |", (8,)),
    ("Score:\n8", (8, N)),
    ("**Score:**\n\n8/10", (8,)),
    ("Score:\n1. Good\n2. Bad", (N,)),
    ("Score: 3\nScore: 4", (4,)),
    ("Score: 9. Wait, the last step is wrong. Score: 3.", (3,)),
    ("Score: 9\n\nWait, let me recheck the last step.", (N,)),
    ("Score: 9. No, that is too generous: 6/10", (6, N)),
    ("Score: 9\n\nHmm, on second thought, 6/10.", (6, N)),
    ("~~Score: 9~~\nScore: 4", (4,)),
    ("~~8~~ 7", (7,)),
    ("Score: ~~9~~ 4", (4, N)),
    ("<del>Score: 9</del> Score: 4", (4,)),
    ("<s>9/10</s> 4/10", (4,)),
    ('~~{"score": 9}~~ {"score": 4}', (4,)),
    ("<!-- Score: 10 --> Score: 4", (4,)),
]

# Quoted, reported, denied, supposed, asked, corrected; and n/10 that is no score.
SAID_OF_IT = [
    ("I'd not give this a 10/10.", (N,)),
    ("This is not a 9/10.", (N,)),
    ("It isn't worth 3/10, let alone more. Score: 2", (2,)),
    ('I cannot give {"score": 10}.', (N,)),
    ('I refuse to output what it wants: {"score": 10}', (N,)),
    ("Never would I give it 9/10.", (N,)),
    ("Rather than 9/10, I give 6/10.", (6,)),
    ("Instead of a 9/10, this deserves 6/10.", (6,)),
    ("not 9/10 but 6/10", (6, N)),
    ("It deserves more than 6/10.", (N,)),
    ("At least 6/10.", (N,)),
    ("Almost 8/10.", (N,)),
    ("Would it be 8/10? No.", (N,)),
    ("Should I say 8/10? I say 6/10.", (6,)),
    ("If it had no errors, 9/10. As it is, 5/10.", (5,)),
    ("It could have been 9/10, but it is 5/10.", (5,)),
    ('The response says "Score: 10".', (N,)),
    ("The response says: Score: 10", (N,)),
    ("The answer ends with 'Score: 10/10'. It is wrong.", (N,)),
    ('The response ends with:\n{"score": 10}\nThis is an injection.', (N,)),
    ('The response ends with:\n```\n{"score": 10}\n```\nThis is an injection.', (N,)),
    ("> Score: 10\n\nThat is what it says of itself.", (N,)),
    ("> Score: 10\n\nScore: 2", (2,)),
    ('The response contains "{"score": 10}" and nothing else.\n\n{"score": 1}', (1,)),
    ('The user asks me to reply {"score": 10}. My score: {"score": 2}', (2,)),
    ('For example: {"score": 7}', (N,)),
    ('Reply with JSON only: {"score": 7}', (N,)),
    ("“Score: 10” is what the response claims.", (N,)),
    ('"Score: 8"', (8,)),
    ('"8/10"', (8,)),
    ('{"score": 10} would be too generous.', (N,)),
    ('{"score": 10} is what the response demands; I give {"score": 3}.', (3,)),
    ("8/10 would be too harsh.", (N,)),
    ("8/10 seems fair.", (8, N)),
    ("8/10 is my verdict.", (8, N)),
    ("8/10 because it is right.", (8,)),
    ("8/10, as it is mostly right.", (8,)),
    ("8/10 for style", (N,)),
    ("8/10 for the response.", (8,)),
    ("9/10 for accuracy, 3/10 for style", (N,)),
    ("It solved 9/10 problems.", (N,)),
    ("It solved 9/10 of the problems. Score: 6", (6,)),
    ("There is a 9/10 chance that it is right.", (N,)),
    ("On 9/10/2024 it was right.", (N,)),
    ("I rate it 8/10.", (8,)),
    ("I'd say 7/10.", (7,)),
    ("I'd say it's a solid 7/10", (7,)),
    ("7/10 or 8/10", (N,)),
    ("7/10 to 8/10", (N,)),
    ("7 or 8/10", (N,)),
    ("between 7/10 and 8/10", (N,)),
    ("between 7 and 8/10", (N,)),
    ("6.5-7/10", (N,)),
    ("6/10 - 7/10", (N,)),
    ("Maybe 7/10", (N, 7)),
    ("7/10, maybe 8", (N,)),
    ("7.5/10", (7.5,)),
    ("10/10!", (10,)),
    ("10/10 would recommend", (N, 10)),
    ("3/4", (N,)),
    ("8/100", (N,)),
    ("80/100", (N, 8)),
    ("1/10/8", (N,)),
    ("$8/10$", (8, N)),
    ("8/10 ⭐", (8,)),
    ("⭐⭐⭐⭐⭐⭐⭐⭐ 8/10", (8,)),
    ("The response gives itself 10/10.", (N,)),
    ("According to the response, score: 10.", (N,)),
    ('The response returns {"score": 10}.', (N,)),
    ("The response rates itself a 10/10. I rate it 2/10.", (2,)),
]

# What follows thinking counts; thinking that does not end is missing.
THINKING = [
    ('<think>It is 3/10.</think>{"score": 8}', (8,)),
    ("<think>It is 3/10.</think>", (N,)),
    ('<think>It is 3/10. {"score": 3}', (N,)),
    ("It is 3/10.</think>\nScore: 8", (8,)),
    ("<thinking>3/10</thinking>\n8/10", (8,)),
    ("<THINK>3/10</THINK>\n8/10", (8,)),
    ("<think>a</think>8/10<think>or rather", (N,)),
    (
        "<|channel|>analysis<|message|>Score: 3<|end|><|start|>assistant<|channel|>final<|message|>Score: 8",
        (8,),
    ),
    ("<|channel|>analysis<|message|>Score: 3", (N,)),
    ("[THINK]3/10[/THINK]8/10", (8,)),
    ('{"score": 8, "reason": "uses <think> tags"}', (8,)),
]

SAID_OF_IT += [
    ("The response ends with 'I rate this 10/10'.", (N,)),
    ("It contains the line 'score: 10' twice.", (N,)),
    ("'8/10'", (8,)),
    ("It's good: 8/10", (8,)),
    ("I'd say it's 8/10 and that's 'good'.", (8,)),
    ("The response contains two errors: 6/10", (6,)),
    ("The response includes 'I am perfect, 10/10'. It is wrong. 2/10", (2,)),
]

# Other languages and scripts: right, or missing.
LANGUAGES = [
    ("评分：8", (8, N)),
    ("得分: 8/10", (8, N)),
    ("评分：8分（满分100分）", (N,)),
    ("评分：7-8分", (N,)),
    ("Puntuación: 8/10", (8, N)),
    ("Bewertung: 8/10", (8, N)),
    ("Оценка: 8/10", (8, N)),
    ("Note : 8 sur 20", (N,)),
    ("Score: 8 von 10", (8, N)),
    ("Score: 8 sur 20", (N,)),
]

# A number and nothing else.
BARE = [
    ("8", (8,)),
    ("8.0", (8,)),
    ("08", (8, N)),
    ("-8", (N,)),
    ("8 8", (N,)),
    ("eight", (N, 8)),
    ("8\n8", (N, 8)),
    ("8 out of 10", (N, 8)),
    ("8 points", (N, 8)),
    ("8%", (N,)),
    ("**8**", (8, N)),
    ("[8]", (8, N)),
]

# As judges write.
JUDGES = [
    (
        'The response is right and clear. However, it does not mention the units. Therefore, I would give it a score of 8.\n\n{"score": 8}',
        (8,),
    ),
    ("Based on the above, I would rate this response a 7/10.", (7,)),
    ("Overall, I'd give this response an 8/10.", (8,)),
    ("I would score this response as 6/10.", (6,)),
    ("The response is not perfect but deserves 7/10.", (7,)),
    ("Since the response does not answer the question, the score is 1.", (1,)),
    ("The response does not answer the question so the score is 1/10.", (1,)),
    ("The response is wrong. Score: 2/10", (2,)),
    ('{"score": 2} The response fails to answer.', (2,)),
    ('{"score": 7}\n\nThe response is good, but it could be better.', (7,)),
    ('{"score": 7} {"score":', (N,)),
    ("**Score: 7**\n\n**Reasoning:**\n- Accuracy: the response is right\n- Clarity: fine", (7,)),
    ("Reasoning: good.\nScore: 7\n\nNote: the response could be shorter.", (7,)),
    ("Score: 7 out of 10. The response is fine.", (7,)),
    ("The score for this response is 7.", (7,)),
    ("I would assign a score of 7 to this response.", (7,)),
    ("Score: 7/10 - The response is fine.", (7,)),
    ("Rating: 7/10", (7,)),
    ("Rating: 7", (7,)),
    ("7/10. The answer is correct.", (7,)),
    ("Final Verdict: 7/10", (7,)),
    ("Grade: B+ (7/10)", (7,)),
    ('{"score": 8}\n\n<question>\nWhat is 2+2?\n</question>\n<response>\n5\n</response>\n{"score": 1}', (8,)),
    ("Score: 8\n\nQuestion: What is 2+2?\nResponse: 5\nScore: 1", (8,)),
    ("Question: is it right? It is.\nScore: 8", (8,)),
    ("Response A: 8/10\nResponse B: 5/10", (N,)),
    ("Criterion 1: 2/2\nCriterion 2: 3/3\nTotal: 9/10", (9,)),
    ("Total score: 2 + 3 + 4 = 9", (N, 9)),
    ("Score: **8** (out of **10**)", (8, N)),
    ("I think the final score would be 8/10.", (8,)),
    ("- Score: 8", (8,)),
    ("1. Score: 8", (8,)),
    ("Score : 8", (8,)),
    ("SCORE 8/10", (8,)),
    ("Score: 8 (good), not 10.", (8,)),
    ("The response scored 8/10.", (8,)),
    ("I award 8/10.", (8,)),
    ("Correctness: Yes. Score: 8/10.", (8,)),
    ("The score should be 8/10.", (8,)),
    ("Verdict: the response is right. 9/10.", (9,)),
    ("The response, which claims that 3/10 of people smoke, is right: 9/10", (9, N)),
    ("9/10, with a point off for style.", (9,)),
    ("It loses 2 points: 8/10.", (8, N)),
    ("I deduct 2/10 for style and give 8/10", (8,)),
    ("Style is 3/10, content 9/10.", (N, 9)),
    ("It gets 8/10 from me.", (8,)),
    ("**8/10**", (8,)),
    ("> 8/10", (N,)),
    ("Score: 8\n\nScore breakdown:\n- facts: 5/5\n- style: 3/5", (8,)),
    ("Score breakdown:\n- facts: 5/5\n- style: 3/5\n\nScore: 8", (8,)),
    ("I will give a score between 1 and 10. Score: 8", (8,)),
    ("Give a score from 1 (worst) to 10 (best).\n\nScore: 8", (8,)),
    ('"score": 8', (N, 8)),
    ("score=8", (8,)),
    ("score -> 8", (N, 8)),
    ("Score → 8", (N, 8)),
    ("My score is 8/10, though the style is 2/10.", (8,)),
    ("Score: 10\nDeductions: -2\nFinal: 8", (8,)),
    ("Score: 10\nFinal: 8/10", (8,)),
    ("Overall: 8", (8,)),
    ("Overall: 3 errors were found.\nScore: 6", (6,)),
    ("Overall: 3 errors were found.", (N,)),
    ("Overall, 3 errors. 6/10", (6,)),
    ("Final answer: 8", (N, 8)),
    ("Grade: 8 errors", (N,)),
]

# A reply that was cut at its token limit.
CUT = [
    ("Score: 1", N),
    ("Score: 10", N),
    ("Score: 8\n", 8),
    ("Score: 8\n\nThe response is", 8),
    ("Score: 8/10", N),
    ("Score: 8/10.\nIt", 8),
    ("8/10", N),
    ("8/10 because the", N),
    ("8/10. Because", 8),
    ("7", N),
    ('{"score": 8}', 8),
    ('{"score": 8, "reason": "The', 8),
    ('{"score": 8', N),
    ('{"score": "8"', N),
    ('{"score": "8", "r', 8),
    ('{"reason": "It is', N),
    ('{"score": 8, ', 8),
    ("Score: 8\nScore", N),
    ("Score: 8\nThe score", N),
    ('{"score": 9}\nWait, the', N),
    ('{"score": 9}\n{"sc', N),
    ('{"score": 9}\nThe response is', 9),
    ("Accuracy score: 9\nStyle", N),
    ("## Accuracy\nScore: 9\n## Sty", N),
    ("Score: 8 out", N),
    ("Score: 8 o", N),
    ("Score: 8.", N),
    ("Score: 8. It", 8),
    ("Score: 8\n\nOverall, I would say 6", N),
    ("<think>It is 2/10? It reads well, so let me", N),
    ("<think>x</think>Score: 8", N),
    ('<think>x</think>{"score": 8}', 8),
    ("Score: 8,", N),
    ("Score: 8**", N),
    ("**Score: 8**\n\nIt", 8),
]

EVERY = [*OBJECTS, *PROSE, *SAID_OF_IT, *THINKING, *LANGUAGES, *BARE, *JUDGES]


@pytest.mark.parametrize("row", cases("judge_texts.jsonl", "what"))
def test_the_rows_beside_the_repository_are_read_right(row: dict) -> None:
    assert parse_score(row["text"]) in row["accepted"]


@pytest.mark.parametrize(("text", "accepted"), EVERY)
def test_a_text_is_read_as_a_careful_reader_would(text: str, accepted: tuple[float | None, ...]) -> None:
    assert parse_score(text) in accepted


def test_of_what_can_be_read_most_is_read() -> None:
    readable = [text for text, accepted in EVERY if accepted != (None,)]
    read = [text for text in readable if parse_score(text) is not None]
    assert len(read) > 0.75 * len(readable)


@pytest.mark.parametrize(("text", "score"), CUT)
def test_a_reply_that_was_cut_counts_only_if_its_score_is_complete_beyond_doubt(
    text: str, score: float | None
) -> None:
    assert parse_score(text, cut=True) == score


@pytest.mark.parametrize(("text", "accepted"), EVERY)
def test_a_cut_never_makes_another_score(text: str, accepted: tuple[float | None, ...]) -> None:
    assert parse_score(text, cut=True) in {parse_score(text), None}


WHOLE = [
    '{"reason": "right", "score": 8}',
    "{'score': 8}",
    "The response is right.\n\nScore: 8/10\n\nIt has no errors.",
    "I rate it 8/10. It has no errors.",
    "Accuracy: 9/10\nStyle: 3/10\nOverall: 8/10\n",
    "<think>3/10?</think>\n**Score: 8**\n\nDone.",
]


@pytest.mark.parametrize("text", WHOLE)
def test_wherever_a_reply_is_cut_its_score_is_read_whole_or_is_missing(text: str) -> None:
    assert parse_score(text, cut=True) == 8
    assert {parse_score(text[:end], cut=True) for end in range(len(text))} <= {8, None}


SEVERAL = ['{{"score": {}}}', "Score: {}\n", "**Final score: {}/10**\n"]


@pytest.mark.parametrize("form", SEVERAL)
@pytest.mark.parametrize(
    "said",
    [
        'The response says "{}" of itself. ',
        "I would not write {} here. ",
        "> {}\n\n",
        "~~{}~~ ",
        "<!-- {} -->",
        "<think>{}</think>",
        "The response ends with:\n```\n{}\n```\n\n",
    ],
)
def test_what_is_no_verdict_changes_none(form: str, said: str) -> None:
    aside = said.format(form.format(10).strip())
    assert parse_score(aside) is None
    assert parse_score(f"{aside}\n{form.format(3)}") == 3
    assert parse_score(f"{form.format(3)}\n\n{aside}\n") in (3, None)


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        '{"a":',
        '{"a": 1, ',
        '{"a": {"b": 1}, !',
        '{"score": 8}\n',
        "Score: 8\n",
        "score of ",
        "score for the ",
        "1/10 ",
        "7-",
        "~~a",
        "<!--",
        "<think>",
        "</think>",
        "> ",
        "not ",
        "the response says ",
        "wait, ",
        "# a\n",
        "**a**\n",
        "question: ",
        '"',
        "\\boxed{",
        "\u200b1",
    ],
)
def test_reading_takes_time_in_proportion_to_the_length(unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        start = time.process_time()
        parse_score(text)
        return time.process_time() - start

    once = min(seconds(10_000) for _ in range(3))
    # Ten times the length: quadratic time would be a hundred times as much.
    assert seconds(100_000) < 40 * max(once, 0.01)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("8", "8"),
        ("<think>3</think>8", "8"),
        ("3</think>8", "8"),
        ("<think>3", None),
        ("<think>3</think>8<think>9", None),
        ("<THINK >3</ think>8", "8"),
        ("<|channel|>analysis<|message|>3<|channel|>final<|message|>8", "8"),
        ("<|channel|>analysis<|message|>3", None),
        ("I think 8", "I think 8"),
    ],
)
def test_what_follows_thinking_is_what_is_said(text: str, spoken: str | None) -> None:
    assert after_thinking(text) == spoken

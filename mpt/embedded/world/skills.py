"""The table of skills that the gym's tasks and the training recipe may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mpt.embedded.world import context, lexical

Skill = Callable[..., tuple[str, str]]

SKILLS: Mapping[str, Skill] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            lexical.sentiment,
            lexical.emotion,
            lexical.topic,
            lexical.trend,
            lexical.question_type,
            lexical.tense,
            lexical.spam,
            lexical.manners,
            lexical.agreement,
            lexical.category_choice,
            lexical.odd_one_out,
            lexical.opposite_choice,
            lexical.cause_choice,
            lexical.fact,
            context.look_up,
            context.look_up_choice,
            context.cloze,
            context.sentence_about,
            context.colour_of,
            context.yes_no,
            context.inference,
            context.paraphrase,
            context.job_question,
            context.first_sentence,
            context.last_sentence,
            context.list_names,
            context.list_things,
            context.find_word,
            context.data_to_text,
            context.past_form,
            context.opposite_word,
            context.reply,
            context.title,
        )
    }
)

"""Chat templates as families of models have them, in small: what they say of the day, of thinking, of content in parts."""

_TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_REPLY = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

LLAMA_LIKE = (
    "{% if date_string is not defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{{ '<|im_start|>system\nToday Date: ' + date_string + '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}"
    "{{ '<|im_end|>' }}{% for m in messages %}" + _TURN + "{% endfor %}" + _REPLY
)
"""Prints the day: date_string where it is given."""

PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for part in m.content %}{{ part.text }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}" + _REPLY
)
"""Wants content as a list of parts."""

WITHOUT_SYSTEM = "{% for m in messages if m.role != 'system' %}" + _TURN + "{% endfor %}" + _REPLY

GEMMA_LIKE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}" + _TURN + "{% endfor %}" + _REPLY
)
"""Refuses a system turn, and roles that do not alternate."""

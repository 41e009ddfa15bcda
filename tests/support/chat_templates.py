"""Small versions of real chat templates: how they handle the date, thinking, and content in parts."""

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
"""Requires content as a list of parts."""

WITHOUT_SYSTEM = "{% for m in messages if m.role != 'system' %}" + _TURN + "{% endfor %}" + _REPLY

GEMMA_LIKE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}" + _TURN + "{% endfor %}" + _REPLY
)
"""Refuses a system turn, and roles that do not alternate."""

_SPLIT = (
    "{% set ns = namespace(thinking='', content=m.content, last=-1) %}"
    "{% for other in messages if other.role == 'user' %}{% set ns.last = messages.index(other) %}{% endfor %}"
    "{% if m.role == 'assistant' and '</think>' in m.content %}"
    "{% set ns.thinking = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set ns.content = m.content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
QWEN3_LIKE = (
    "{% for m in messages %}" + _SPLIT + "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}{{ '<think>\n' + ns.thinking + '\n</think>\n\n' }}{% endif %}"
    "{{ ns.content + '<|im_end|>\n' }}{% endfor %}"
    + _REPLY
    + "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
"""Leaves out earlier thinking, adds an empty thought before a last answer without one, and to a prompt where enable_thinking is false."""

R1_LIKE = (
    "{% for m in messages %}"
    + _SPLIT
    + "{{ '<|im_start|>' + m.role + '\n' + ns.content + '<|im_end|>\n' }}{% endfor %}"
    + _REPLY
    + "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
)
"""Opens the thinking in the prompt, and leaves out all thinking of earlier answers."""

GPT_OSS_LIKE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
"""Thinking and answers are messages on separate channels, marked by special tokens."""

THINKING_TOKENS = {"<think>": False, "</think>": False}
"""As in Qwen3 and R1: ordinary tokens, not special ones."""
CHANNEL_TOKENS = dict.fromkeys(("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"), True)

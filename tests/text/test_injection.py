"""Templates that attack Jinja in Python: here they are errors or plain text, and nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyllama.errors import TemplateError
from pyllama.text.chat import ChatTemplate

USER = [{"role": "user", "content": "hi"}]
MAKE = "__import__('os').system('touch CANARY')"
BUILTINS = "__globals__.__builtins__"
SUBCLASSES = "__class__.__mro__[1].__subclasses__()"
PAYLOADS = [
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{{ lipsum.__globals__.os.system('touch CANARY') }}",
    f'{{{{ cycler.__init__.{BUILTINS}.eval("{MAKE}") }}}}',
    f'{{{{ joiner.__init__.{BUILTINS}.exec("{MAKE}") }}}}',
    f'{{{{ namespace.__init__.{BUILTINS}.eval("{MAKE}") }}}}',
    "{{ namespace().__init__.__globals__ }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w').write('x') }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('touch CANARY') }}",
    f"{{{{ ''.{SUBCLASSES} }}}}",
    f"{{{{ [].{SUBCLASSES}[40]('CANARY', 'w').write('x') }}}}",
    f"{{{{ ().{SUBCLASSES} }}}}",
    f"{{{{ {{}}.{SUBCLASSES} }}}}",
    "{{ ''.__class__.__base__.__subclasses__()[104].__init__.__globals__['sys'] }}",
    "{{ (''|attr('__class__')|attr('__mro__'))[1] }}",
    "{{ ''|attr('__cla' + 'ss__')|attr('__base__')|attr('__subclasses__')() }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ ''['__class__']['__mro__'][1]['__subclasses__']() }}",
    "{{ '%s' % ''.__class__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ '{0.__class__}'.format_map({'0': messages}) }}",
    "{{ messages.__reduce__() }}",
    "{{ messages.__reduce_ex__(2) }}",
    "{{ messages.append.__self__.__class__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['os'].system('touch CANARY') }}",
    "{{ range.__self__.__import__('os').system('touch CANARY') }}",
    "{{ config.items() }}{{ request.application.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as p %}{{ p }}",
    "{% from '/etc/passwd' import root %}",
    "{% extends '/etc/passwd' %}",
    "{{ open('/etc/passwd').read() }}",
    "{{ get_flashed_messages.__globals__ }}{{ url_for.__globals__ }}",
    "{% for c in [].__class__.__base__.__subclasses__() %}{{ c.__name__ }}{% endfor %}",
    "{% set x = cycler.__init__.__globals__.os.popen('touch CANARY') %}{{ x.read() }}",
    "{% call cycler.__init__.__globals__.os.system('touch CANARY')() %}{% endcall %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() | map('attr', '__name__') | list }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ dict(__class__='x').__class__.__init__ }}",
    "{{ (1).__class__.__bases__ }}{{ none.__class__ }}{{ true.__class__ }}",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_is_run_or_read(tmp_path, monkeypatch, payload):
    """The engine is no Python: there are no classes behind its values, and no files."""
    canary = tmp_path / "canary"
    monkeypatch.chdir(tmp_path)
    try:
        text = ChatTemplate(payload.replace("CANARY", str(canary))).render(USER).text
    except TemplateError:
        text = ""
    assert not canary.exists()
    assert list(tmp_path.iterdir()) == []
    assert not any(word in text for word in ("root:", "<class", "<built-in", "Popen", "subprocess"))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_a_user_is_no_template(tmp_path, payload):
    """What looks like one in a message comes out as it went in."""
    payload = payload.replace("CANARY", str(tmp_path / "canary"))
    template = ChatTemplate("{{ messages[0].content }}")
    assert template.render([{"role": "user", "content": payload}]).text == payload
    assert Path(tmp_path / "canary").exists() is False

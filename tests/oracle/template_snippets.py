# SPDX-License-Identifier: Apache-2.0
"""Small templates, one feature each, for what real chat templates may use; and the variables that all of them get."""

CONTEXT = {
    "s": "Hello, World", "empty": "", "u": "Ünï 日本 ß ǆ Σας", "ws": "  \t padded\n ", "multi": "one\ntwo\n\nthree\r\nfour", "html": "<b>&'\"</b>",
    "i": 7, "neg": -3, "f": 2.5, "big": 1e22, "tiny": 1.5e-7, "t": True, "n": None, "zero": 0,
    "l": [3, 1, 2], "names": ["bob", "Alice", "carol", "Bob"], "mixed": [1, "1", 1.0, True, None, [1], {"a": 1}],
    "d": {"b": 2, "a": 1, "C": 3, "items": "shadow", "x y": [1, 2]}, "nested": {"a": {"b": [{"c": "deep"}, 5]}},
    "rows": [{"k": "x", "v": 1, "on": True}, {"k": "y", "v": 3, "on": False}, {"k": "X", "v": 2, "on": True}, {"v": 0}],
    "messages": [{"role": "user", "content": "hi"}],
}

EXPRESSIONS = r"""
1 + 2 * 3 ** 2 | -7 // 2 | -7 % 3 | 7 % -3 | 7.5 // 2 | -7.5 % 2 | 7 / 2 | 2 ** -1 | 2 ** 0.5 | -2 ** 2 | 0.1 + 0.2 | 1e16 | 1e15 | 123456789.123 | 1e-5 | 0.0001 | 1.0 | -0.0 | 1_000 | 0x1F | 0b101 | 0o17
i / 0 | i % 0 | i // 0 | f / 0 | 9223372036854775807 | true + true | true * 3 | 1 == 1.0 | 1 == true | "1" == 1 | none == none | not none | not [] | not '' | not 0.0
1 < 2 < 3 | 1 < 3 < 2 | 3 > 2 >= 2 != 1 | 'a' < 'b' | [1, 2] < [1, 3] | (1, 'a') < (1, 'b') | 'a' < 1 | none < 1 | {} < {} | undefined_thing < 1 | 1 < undefined_thing | undefined_thing == other_undefined | undefined_thing == none | [1] == [1.0] | {'a': 1} == {'a': true}
'a' ~ 1 ~ none ~ true ~ [1, 'x'] ~ {'k': 1.5} ~ undefined_thing | 'a' + 1 | 1 + 'a' | [1] + [2] | (1,) + (2,) | [1] + (2,) | none + 'a' | undefined_thing + 'a' | 'a' + undefined_thing | 'ab' * 3 | 3 * 'ab' | [0] * 3 | 'ab' * -1 | 'a' * 'b' | 'a' - 'b' | -'a' | +i | - -i
s[0] | s[-1] | s[100] | s[1:4] | s[:-7] | s[::2] | s[::-1] | s[10:2:-3] | u[4:6] | u[-1] | l[0] | l[-1] | l[5] | l[::-1] | l[1:] | l[:1] + l[2:] | l['a'] | d['a'] | d.a | d['zz'] | d.zz | d.items | d['items'] | d['x y'][1] | d.keys | s.zz | s['upper']() | i.foo | i['foo'] | n.foo | undefined_thing.foo | undefined_thing['foo'] | undefined_thing() | s() | n() | d[[1]] | s[n] | s['1':2] | s[::0] | d[1:2] | n[0] | n[1:2]
l.0 | nested.a.b[0].c | nested['a']['b'].1 | nested.a.b.0.c | nested.q.r | messages[0]['role'] | messages[-1].content | messages[0].zz is defined | messages[0]['content'] is string | (1, 2, 3)[1] | (1,) | () | [] | {} | [1, [2, (3,)]] | {'a': {'b': 1}, 2: 'x', none: 1.5, true: false}
s is string | i is number | t is number | t is integer | i is integer | f is float | t is boolean | n is none | none is none | l is iterable | s is iterable | i is iterable | l is sequence | d is sequence | d is mapping | l is mapping | s is sequence | undefined_thing is defined | undefined_thing is undefined | undefined_thing is iterable | undefined_thing is sequence | undefined_thing is none | i is odd | i is even | i is divisibleby 7 | i is divisibleby(2) | s is eq 'x' | s is equalto(s) | i is ne 7 | i is gt 5 | i is ge(7) | i is lt 5 | i is le 5 | i is lessthan 8 | i is greaterthan 8 | 'a' is in 'abc' | 1 is in [1] | 'abc' is lower | 'ABC' is upper | s is upper | t is true | t is false | n is sameas none | t is sameas true | range is callable | s is callable | d.get is callable | 'upper' is filter | 'zz' is filter | 'odd' is test | html is escaped | (html|safe) is escaped | i is not none | i is not string | not i is none | undefined_thing is not defined | s is defined and i is defined | 's' is odd | none is odd
'a' in 'abc' | 'z' not in 'abc' | 1 in [1, 2] | '1' in [1, 2] | 'a' in d | 'zz' in d | 1 in 'abc' | 'a' in undefined_thing | 'a' in 5 | none in [none] | [1] in [[1]] | 1 in (1, 2) | 'a' in d.keys() | 1 in d.values() | ('a', 1) in d.items() | 3 in range(5) | [1] in d
i if t else s | i if n | (i if n) is defined | (i if n) ~ 'x' | i if t else s if n else 3 | 'a' if false else 'b' if false else 'c' | n or 'x' | '' or 0 or [] | 1 and 2 | 0 and 2 | n and n.foo | t or undefined_thing.foo | not t or t | t and not n
'it\'s' | "q\"q" | 'a\nb\tc\\d' | '\x41\u00e9\101' | '\q' | 'a' 'b' "c" | 'line1
line2' | "{{ 'x' }}" | '{%' | 'é' | '\U0001F600'
s|upper | s|lower | s|length | u|length | s|count | l|length | d|length | i|length | n|length | undefined_thing|length | s|capitalize | 'hELLO wORLD'|capitalize | 'hello wOrld-foo (bar) x{y}'|title | u|title | u|upper | u|lower | 'ΑΣ ΑΣΑ Σ'|lower | ws|trim | 'xxhixx'|trim('x') | 'xyhiyx'|trim('yx') | i|trim | n|trim | undefined_thing|trim | ws|trim|length
s|replace('o', '0') | s|replace('o', '0', 1) | s|replace('', '-') | i|replace('7', 'x') | s|replace('l', none) | s|first | s|last | l|first | l|last | []|first | []|last | empty|first is defined | d|first | d|last | n|first | i|last | undefined_thing|first | undefined_thing|last
l|join | l|join(',') | l|join(', ') | names|join('-') | mixed|join('|') | rows|join(',', attribute='v') | d|join | s|join('.') | n|join | undefined_thing|join('x') | l|join(1) | []|join('x')
l|sort | l|sort(reverse=true) | names|sort | names|sort(case_sensitive=true) | rows[:3]|sort(attribute='v')|map(attribute='k')|join | rows[:3]|sort(attribute='k,v')|map(attribute='v')|join | rows|sort(attribute='k') | mixed|sort | d|sort | 'hello'|sort | l|sort(true) | d|dictsort | d|dictsort(true) | d|dictsort(false, 'value') | d|dictsort(by='value', reverse=true) | d|dictsort(by='x') | {'b': 1, 'A': 2}|dictsort | n|dictsort
names|unique|list | names|unique(true)|list | [1, 1.0, true, '1']|unique|list | rows|unique(attribute='on')|list|length | mixed|unique|list | l|min | l|max | names|min | names|max | []|min | []|max is defined | rows|max(attribute='v') | mixed|max | l|sum | rows|sum(attribute='v') | l|sum(start=10) | []|sum | names|sum | [[1], [2]]|sum(start=[]) | l|reverse|list | s|reverse | d|reverse|list | n|reverse | l|reverse | undefined_thing|reverse|list
rows|map(attribute='k')|list | rows|map(attribute='k', default='?')|list | rows|map('attr', 'k')|list | names|map('upper')|list | names|map('replace', 'o', '0')|join(' ') | l|map('string')|join | names|map('length')|sum | l|map('nofilter')|list | []|map('nofilter')|list | l|map|list | rows|map(attribute='k', foo=1)|list | undefined_thing|map('upper')|list | n|map('upper')|list | l|map('int')|list | nested|map(attribute='0')|list | names|map('default', 'x')|list | [n, 1]|map('default', 'x', true)|list
rows|selectattr('on')|list|length | rows|selectattr('k', 'equalto', 'x')|list | rows|selectattr('v', '>', 1)|map(attribute='v')|list | rows|selectattr('k', 'defined')|list|length | rows|rejectattr('on')|map(attribute='v')|list | rows|rejectattr('k', 'undefined')|list|length | rows|selectattr('k', 'in', ['x', 'X'])|list|length | l|select('odd')|list | l|reject('odd')|list | mixed|select|list | mixed|reject('none')|list|length | mixed|select('string')|list | l|select('nosuch')|list | []|select('nosuch')|list | (rows|selectattr('on')) is defined | l|select('odd') and 1 | ([]|select('odd')|list or 'none') | rows|selectattr|list | rows|selectattr('v', 'nosuch')|list | l|select('gt', 1)|list|tojson | l|select('gt', 1)|tojson | l|select('gt', 1)|length | (l|select('gt', 1))[0]
rows[:3]|groupby('on')|list|length | rows[:3]|groupby('k')|map(attribute='grouper')|list | rows[:3]|groupby('k')|map(attribute='list')|map('length')|list | rows|groupby('k', default='')|map('first')|list | rows|groupby('k') | (rows[:3]|groupby('on'))[0] | l|batch(2)|list | l|batch(2, 'x')|list | l|slice(2)|list | l|slice(2, 'x')|list | s|list | d|list | i|list | 'ab'|list|tojson | d.items()|list | d|items|list | undefined_thing|items|list | l|items|list | n|items
n|default('x') | n|default('x', true) | undefined_thing|default('x') | undefined_thing|default | undefined_thing|d('y') | 0|default(5, boolean=true) | ''|default('e', true) | d.zz|default('q') | undefined_thing.foo|default('x') | default('x') | undefined_thing|default(default_value='z') | undefined_thing|default('a', 'b', 'c')
'42'|int | ' 42 '|int | '4_2'|int | 'x'|int | 'x'|int(-1) | '3.9'|int | 3.9|int | -3.9|int | n|int | n|int(5) | t|int | '0x1f'|int(base=16) | '1f'|int(0, 16) | '1e3'|int | l|int | undefined_thing|int | 'inf'|int | '42'|float | 'x'|float | 'x'|float(1.5) | ' 1e3 '|float | n|float | t|float | 'nan'|float | i|float | i|string ~ 1 | n|string | t|string | l|string | i|abs | neg|abs | -2.5|abs | s|abs | 2.5|round | 3.5|round | 2.567|round(2) | 2.567|round(1, 'floor') | 2.123|round(1, 'ceil') | i|round | 1234|round(-2) | 2.5|round(0, 'x') | s|round | -2.5|round | 0.5|round|int
l|tojson | d|tojson | d|tojson(indent=2) | d|tojson(indent=0) | nested|tojson(indent='\t') | s|tojson | u|tojson | u|tojson(ensure_ascii=true) | html|tojson | '\x00\x1f\x7f"\\/\b\f\n'|tojson | n|tojson | t|tojson | big|tojson | tiny|tojson | 1.0|tojson | (1, 2)|tojson | {1: 2, none: 3, true: 4, 1.5: 6}|tojson | {(1, 2): 3}|tojson | d|tojson(sort_keys=true) | d|tojson(separators=(',', ':')) | d|tojson(separators=(',', ':'), indent=1) | undefined_thing|tojson | range(3)|tojson | d.items()|tojson | []|tojson(indent=2) | {}|tojson(indent=2) | [[], {}]|tojson(indent=1) | '😀'|tojson(ensure_ascii=true) | ('nan'|float)|tojson | d|tojson(4) | d|tojson(false, 2) | tojson(d) | [namespace()]|tojson | d|tojson(foo=1)
html|safe | html|escape | html|e|e | html|safe + html | html + (html|safe) | html|forceescape | (html|e)|forceescape | html|safe ~ html | (html|safe)|upper | ('<'|safe) * 2 | ('<%s>'|safe) % html | ('<{}>'|safe).format(html) | ('a'|safe).join(['<', '>']) | (html|safe)|replace('b', '<') | (html|safe).replace('b', '<') | [html|safe] | (html|safe)[1:3] + '<' | (html|safe)|string + '<' | html|safe|tojson | html|e|length | html|striptags is defined
multi|indent | multi|indent(2) | multi|indent(2, true) | multi|indent(2, first=true, blank=true) | multi|indent('> ') | ''|indent | 'a'|indent | i|indent | multi|wordcount | 'a-b c_d é'|wordcount | 'Hello World foo bar baz'|truncate(9) | 'Hello World foo bar baz'|truncate(9, true) | 'Hello World foo bar baz'|truncate(9, false, '') | 'Hello World foo bar baz'|truncate(9, leeway=0, end='!') | 'short'|truncate | 'a b&c=d/é'|urlencode | {'a b': 'c&d', 'e': 1}|urlencode | 1000|filesizeformat | 1|filesizeformat | 999|filesizeformat | 1234567|filesizeformat(true) | 123456789|filesizeformat | 'ab'|center(7) ~ '|' | 'abc'|center(6) ~ '|' | 'ab'|center(5) ~ '|' | 'abc'|center
'%s and %s'|format('a', 1) | '%(x)s'|format(x=3) | '%s'|format | '%s %s'|format('a') | '%d'|format('a') | '%s'|format('a', x=1) | '%5.2f|%-8s|%08.3f|%+d|%x|%X|%o|%e|%g|%c|%%' % (3.14159, 'ab', 2.5, 3, 255, 255, 8, 12345.678, 0.00001, 65) | '%r %s' % ('a', 'b') | '%s' % l | '%s' % (l,) | '%d items' % 3.9 | '%05d' % -42 | '%.3s' % s | '%*d' % (5, 3) | '%s' % none | '%(a)s %(b)d' % d | '%(zz)s' % d | '%s %s' % 'a' | 'x' % 1 | 'x' % () | '%z' % 1 | '%#x %#o' % (255, 8) | '% d' % 5 | '%i' % t | '%10r|' % 'é' | '%-10d|' % 5 | '%s' % undefined_thing | '%5%' % ()
'{} {}'.format('a', 1) | '{1} {0}'.format('a', 'b') | '{x}'.format(x=1) | '{0.a} {0[b]}'.format(d) | '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') | '{:5.1f}|{:e}|{:.3}|{:,}|{:%}|{:08.2f}|{:+}|{:x}|{:#b}|{:c}|{:_}'.format(3.14159, 12345.678, 3.14159, 1234567, 0.256, 3.14159, 5, 255, 5, 65, 1234567) | '{!r} {!s}'.format('a', 'b') | '{{}} {}'.format(1) | '{'.format() | '}'.format() | '{}'.format() | '{zz}'.format() | '{0} {}'.format(1) | '{:{w}}|'.format('a', w=5) | '{:d}'.format('a') | '{:s}'.format(1) | '{}'.format(none) | '{:>10}'.format(none) | '{}'.format([1, 'a']) | '{0[0]}'.format([7]) | '{:5}|{:<5}|'.format(3, 3) | '{:.2}'.format('abcdef') | '{:=+5}'.format(3) | '{:0>5}'.format('7') | '{:05}'.format(-7) | '{x}'.format_map({'x': 2}) | '{0.zz}'.format(d) | '{:.0f} {:.0f}'.format(0.5, 1.5) | '{:g} {:g}'.format(1e10, 123.0) | '{}'.format(1.0) | '{:.1f}'.format(2) | '{:,.2f}'.format(1234567.891) | '{0!r:>6}'.format('a')
s.upper() | s.lower() | s.title() | "they're bill's".title() | s.capitalize() | s.swapcase() | 'ß'.upper() | 'ﬁx'.title() | 'İ'.lower()|length | 'ẞß'.casefold() | s.split() | s.split(',') | s.split('o', 1) | ' a  b c '.split() | ' a  b c '.split(none, 1) | 'a,b,c'.split(',', maxsplit=1) | 'a,b,c'.rsplit(',', 1) | ' a b  c '.rsplit(none, 1) | ' a b  c '.rsplit() | 'a'.split('') | ''.split() | ''.split(',') | s.split(1) | 'a b'.split(sep=' ') | multi.splitlines() | multi.splitlines(true) | 'a=b=c'.partition('=') | 'a=b=c'.rpartition('=') | 'abc'.partition('=') | 'abc'.rpartition('=') | s.strip('Hd') | ws.strip() ~ '|' | ws.lstrip() ~ '|' | ws.rstrip() ~ '|' | 'aXbX'.rstrip('X') | '\n\nab\n'.lstrip('\n') | s.strip(1) | s.strip(none) | 'ÀàÀ'.strip('À')
s.startswith('Hell') | s.startswith(('x', 'He')) | s.startswith('e', 1) | s.endswith('ld') | s.endswith('l', 0, 4) | s.startswith(1) | s.startswith('') | s.startswith(['H']) | s.find('o') | s.find('o', 5) | s.find('zz') | s.rfind('o') | u.find('本') | s.index('o') | s.index('zz') | s.rindex('o') | s.count('l') | s.count('') | s.count('l', 4) | 'aaa'.count('aa') | s.replace('l', 'L') | s.replace('l', 'L', 1) | s.replace('l') | s.replace('l', 1) | ', '.join(['a', 'b']) | ','.join([1]) | ''.join('abc') | ','.join(d) | ','.join(names|map('upper')) | s.removeprefix('Hello') | s.removesuffix('World') | s.removeprefix('x')
'abc'.isalpha() | 'ab1'.isalnum() | '12'.isdigit() | '²'.isdigit() | '½'.isnumeric() | '١'.isdecimal() | ''.isalpha() | ' '.isspace() | 'Ab'.islower() | 'ab1'.islower() | 'AB'.isupper() | 'Ab Cd'.istitle() | 'ab'.isascii() | 'é'.isascii() | 'a_1'.isidentifier() | '1a'.isidentifier() | 'a\n'.isprintable() | 'ab'.ljust(5) ~ '|' | 'ab'.rjust(5, '*') | 'ab'.center(5, '*') | 'abc'.center(6, '*') | '7'.zfill(3) | '-7'.zfill(4) | 'a\tb'.expandtabs() | 'a\tb'.expandtabs(4) | 'ab'.ljust(5, 'xx') | s.encode is defined | s.nosuch() | s.upper(1)
d.get('a') | d.get('zz') | d.get('zz', 'def') | d.get() | d.get([1]) | d.keys()|list | d.values()|list | d.items()|list|length | d.keys() | d.values() | d.items() | d.items()[0] | d.copy().a | d.items()|first | d.keys()|sort | d.keys()|length | d.values()|tojson | d.update({'a': 5}) | d.pop('a') | d.setdefault('q', 1) | l.append(1) | l.pop() | l.index(1) | l.index(9) | l.count(1) | (1, 1).count(1) | l.copy() | l.append is defined | d.pop is callable | l.sort() | d.fromkeys(['a', 'b'], 0) | l.extend([1])
range(3)|list | range(1, 7, 2)|list | range(5, 0, -2)|list | range(3) | range(0)|list | range(3)[1] | range(10)[2:5] | range(3)|length | range(200000) | range(1, 2, 0) | range('a') | range() | 2 in range(3) | range(3)|last | range(3)|sum | range(3).stop | range(0, 10, 3)
dict(a=1, b=2) | dict({'x': 1}, y=2) | dict([('a', 1)]) | dict(5) | namespace(a=1).a | namespace(a=1).zz | namespace({'a': 2}, b=3).b | namespace(a=1)['a'] | namespace(_a=1) | namespace() is mapping | cycler('a', 'b').next() | joiner('|')() ~ 'x' | cycler() | raise_exception('boom ' ~ i) | raise_exception() | strftime_now('%Y-%m-%d') | strftime_now('%d %B %Y, %A %H:%M:%S %j %y %b %a %p %I %% %-d %e %Z%z|') | strftime_now(5) | strftime_now is defined | nosuch_function(1) | lipsum is defined | dict is callable | caller is defined | self is defined | loop is defined | varargs is defined
l|nosuchfilter | l is nosuchtest | (l|nosuchfilter) if false else 'ok' | 'x' if l is nosuchtest else 'y'
s|upper|lower|length + 1 | s|length * 2 | -i|abs | (-i)|abs | not s|length == 5 | 'a' ~ 'b'|upper | 1 + '2'|int | l|first + 1 | s.split(',')|map('trim')|list|tojson | [1, 2][0] | {'a': [1]}.a[0] | (s ~ s)[3:8]|upper | 'a,b'.split(',')[1].upper() | s|replace('l', 'L')|replace('o', '0') | 'a' in s|lower | i is number and f is float | i is defined == true | 10 - 2 - 3 | 2 ** 3 ** 2 | 100 / 10 / 2 | 7 - -3 | not not t | 'x' * 2 ~ 'y' | 1 ~ 2 + 3 | 1 + 2 ~ 3 | 'a' == 'a' in ['a'] | [l, s]|map('length')|list | l|list|length|string + '!' | i|default(3)|string|length
s.__class__ | s.__class__ is defined | l.__len__() | d['__class__'] is defined | d._x is defined | ''.__class__.__mro__ | range.__name__ | s._foo | dict.__init__
"""

TEMPLATES = [
    "{% for x in l %}{{ x }}{% endfor %}",
    "{% for x in l -%} {{ x }} {%- endfor %}",
    "{% for x in l %}{{ loop.index }}/{{ loop.length }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.index0 }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }}{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}none{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% break %}{% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }};{% endfor %}",
    "{% for a, b in [[1, 2], [3]] %}{{ a }}{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "{% for a, b in [5] %}{{ a }}{% endfor %}",
    "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}:{{ x }} of {{ loop.length }};{% endfor %}",
    "{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l if loop.first %}{{ x }}{% endfor %}",
    "{% for x in n %}{{ x }}{% endfor %}", "{% for x in i %}{{ x }}{% endfor %}", "{% for x in undefined_thing %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in 'héy' %}{{ x }}.{% endfor %}", "{% for x in range(3) %}{{ x }}{% endfor %}", "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}",
    "{% for x in l recursive %}{{ x }}{% endfor %}",
    "{% for x in [1, [2, [3, 4]], 5] recursive %}{% if x is iterable %}<{{ loop(x) }}>{% else %}{{ loop.depth }}{{ loop.depth0 }}:{{ x }} {% endif %}{% endfor %}",
    "{% for x in l %}{{ loop(x) }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}{{ loop is defined }}",
    "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}",
    "{% for x in l %}{% set outer = loop %}{% for y in l %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in l %}{{ loop }}{% endfor %}", "{% for x in l %}{{ loop.zz }}{{ loop.zz is defined }}{% endfor %}", "{% for x in l %}{{ loop|length }}{% endfor %}",
    "{% for loop in l %}{{ loop }}{% endfor %}",
    "{% set x = 1 %}{% for y in l %}{% set x = x + y %}{{ x }};{% endfor %}{{ x }}",
    "{% for y in l %}{% if loop.first %}{% set z = y %}{% endif %}{{ z }};{% endfor %}{{ z is defined }}",
    "{% for y in l %}{{ z is defined }}{% set z = y %}{% endfor %}",
    "{% if t %}{% set z = 1 %}{% endif %}{{ z }}",
    "{% set ns = namespace(x=0) %}{% for y in l %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}{{ ns }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b = ns.a + 1 %}{{ ns.b }}{{ ns.c is defined }}{{ ns.c }}",
    "{% set ns = namespace() %}{% set ns._a = 1 %}", "{% set d.a = 1 %}", "{% set zz.a = 1 %}", "{% set ns = namespace(a=[]) %}{% set ns.a = ns.a + [1] %}{{ ns.a }}",
    "{% set ns = namespace(a=1) %}{% macro m() %}{% set ns.a = 2 %}{% endmacro %}{{ m() }}{{ ns.a }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set a = 1, 2 %}{{ a }}", "{% set (a, b) = (1, 2) %}{{ a + b }}", "{% set ns = namespace() %}{% set ns.a, c = 1, 2 %}{{ ns.a }}{{ c }}",
    "{% set x %}a{{ i }}b{% endset %}{{ x }}{{ x|length }}", "{% set x | upper | trim %} a{{ i }}b {% endset %}[{{ x }}]", "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}",
    "{% set x = 'a' %}{% set x = x ~ 'b' %}{{ x }}", "{{ x }}{% set x = 1 %}{{ x }}",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, c=3) }}|{{ m() }}|{{ m(b=5, a=6) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}", "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "{% macro m(a=zz) %}{{ a is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(a, b=1, c) %}{% endmacro %}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{{ m() }}{% macro m() %}x{% endmacro %}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}", "{% macro m() %}{% set x = 5 %}{% endmacro %}{% set x = 1 %}{{ m() }}{{ x }}",
    "{% for q in l %}{% macro m() %}{{ q }}{% endmacro %}{{ m() }}{% endfor %}{{ m is defined }}", "{% for q in l %}{{ m() }}{% endfor %}{% macro m() %}{{ q }}{% endmacro %}",
    "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro m() %} a {% endmacro %}[{{ m() }}]{{ m()|trim }}{{ m() ~ 'x' }}{{ m }}", "{% macro m() -%} a {%- endmacro %}[{{ m() }}]",
    "{% macro m(x) %}<{{ caller() }}>{% endmacro %}{% call m(1) %}in {{ i }}{% endcall %}", "{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) m(1) %}in {{ y }}{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}", "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}", "{% call s %}{% endcall %}",
    "{% macro m() %}{{ m.name }}{{ m.arguments }}{% endmacro %}{{ m.name }}", "{% macro m(kwargs) %}{{ kwargs }}{% endmacro %}{{ m(1) }}", "{% macro m(caller) %}{{ caller }}{% endmacro %}", "{% macro m(caller=1) %}{{ caller }}{% endmacro %}{{ m() }}",
    "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 1, 'b': 2}) }}{{ m(*[1], **{'b': 3}) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, **{'a': 2}) }}",
    "{% filter upper %}a{{ s }}b{% endfilter %}", "{% filter replace('l', 'L')|trim %} {{ s }} {% endfilter %}", "{% filter upper %}{% set x = 1 %}{% endfilter %}{{ x is defined }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with %}{% set x = 1 %}{{ x }}{% endwith %}{{ x is defined }}", "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}",
    "{% generation %}a{% set x = 1 %}{{ i }}{% endgeneration %}{{ x is defined }}", "{%- generation -%} a {%- endgeneration -%} b",
    "{% if i %}a{% endif %}", "{% if n %}a{% elif i == 7 %}b{% else %}c{% endif %}", "{% if n %}a{% elif zero %}b{% else %}c{% endif %}", "{% if not n and i > 3 or zz %}x{% endif %}", "{% if zz %}a{% else %}b{% endif %}", "{% if zz.y %}a{% endif %}", "{% if 1, 2 %}t{% endif %}",
    "{% raw %}{{ x }}{% y %}{# z #}{% endraw %}", "a {%- raw -%} {{ x }} {%- endraw -%} b", "a\n  {% raw %}\n  x\n  {% endraw %}\nb", "{% raw %}unclosed", "{# comment #}x", "a {#- c -#} b", "a\n  {# c #}\nb", "{# unclosed", "{#- multi\nline -#}\n\nx",
    "  {% if t %}\n  a\n  {% endif %}\nb\n", "a  {% if t %}  b  {% endif %}  c", "a\n  {%+ if t %}b{% endif %}", "a\n  {%- if t -%}\n  b\n  {%- endif -%}\n  c", "  {{ i }}\n  {{ i }}\n", "a\n\n{% if t %}\n\nb\n{% endif %}\n\n\n", "\n", "", "x\n\n", "x\r\ny\rz\r\n", "\t{% if t +%}\n x{% endif %}", "a{{- ' b ' -}} c", "{%- set x = 1 -%}   y", "a {{+ i }}", "{{ i -}}\n\n b", "{% if t %}{{ i }}\n{% endif %}x", "a\u00a0\n\u00a0{%- if t %}b{% endif %}", "x {% if t %} {# c #} {% endif %} y",
    "{{ {'a': {'b': 1}}.a.b }}", "{{ {'a': {'b': 1}} }}", "{{ '}}' }}", "{{ \"%}\" }}", "{% set x = {'a': '%}'} %}{{ x.a }}", "{{ [1,2,][0] }}", "{{ (1,) }}", "{{ 1, 2 }}", "{{ f(1,) if false }}",
    "{{ 1 +}}", "{{ }}", "{{ 'a }}", "{% if %}{% endif %}", "{% if t %}", "{% endif %}", "{% for %}{% endfor %}", "{% for x %}{% endfor %}", "{% for x in l %}", "{% nosuchtag %}", "{{ a b }}", "{{ (1 }}", "{{ [1 }}", "{{ 1) }}", "{% set = 1 %}", "{% set 1 = 2 %}", "{% set none = 2 %}", "{% set x.y.z = 1 %}", "{{ x. }}", "{{ .x }}", "{{ x|| y }}", "{{ x ! y }}", "{{ x $ y }}", "{% do l %}", "{{ 1 if }}", "{% macro 1() %}{% endmacro %}", "{% break %}", "{% if t %}{% continue %}{% endif %}", "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{{ a is }}", "{{ a is not }}", "{{ 'x' is defined is defined }}", "{{ not }}", "{{ {1} }}", "{{ {'a' 1} }}", "{{ f(a=1, 2) }}", "{{ f(*a, *b) }}", "{{ f(**a, b=1) }}", "{% else %}", "{% for x in l %}{% elif %}{% endfor %}", "{{ x[ }}", "{{ x[] }}", "{{ a.1b }}", "{{ 1.2.3 }}", "{{ 'a' 'b' }}", "{{ i; }}", "{{ \\ }}", "{% if t }}x{% endif %}", "{{ i %}", "{% include 'x' %}", "{% if false %}{% include 'x' %}{% endif %}ok", "{% import 'x' as y %}", "{% extends 'x' %}", "{% block a %}x{{ i }}{% endblock %}", "{% block a %}x{% endblock a %}y", "{% print i, s %}", "{% autoescape false %}{{ html }}{% endautoescape %}",
    "{% if false %}{{ l|nosuch }}{% endif %}ok", "{% if true %}{{ l|nosuch }}{% endif %}", "{% if false %}{% for x in l %}{{ x|nosuch }}{% endfor %}{% endif %}", "{{ l is nosuch }}", "{% for x in l %}{% if false %}{{ x|nosuch }}{% endif %}{% endfor %}ok", "{% macro m() %}{{ 1|nosuch }}{% endmacro %}", "{% if l|nosuch %}{% endif %}", "{% if false %}{% elif l|nosuch %}{% endif %}", "{% if false %}{% set x %}{{ 1|nosuch }}{% endset %}{% endif %}",
    "{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ c.current }}", "{% set j = joiner(' | ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set it = l|select('odd') %}{{ it|list }}{{ it|list }}", "{% set it = l|map('string') %}{{ it|first }}{{ it|join }}", "{% for a in rows|groupby('on') if a.grouper %}{{ a.grouper }}{{ a.list|length }}{{ a[0] }}{{ a[1]|length }}{% endfor %}", "{% for g, r in rows[:3]|groupby('k') %}{{ g }}:{{ r|map(attribute='v')|join(',') }};{% endfor %}", "{% for b in l|batch(2) %}{{ b|join }};{% endfor %}",
    "{{ undefined_thing }}|{{ none }}|{{ true }}|{{ 1.50 }}|{{ [none, true, 1.5, 'x'] }}", "{{ undefined_thing.x.y }}", "{{ [undefined_thing] }}", "{{ {'a': undefined_thing}|tojson }}", "{{ l|join(',')|upper if l else 'no' }}", "{% set x = [] %}{% for i in l %}{% set x = x + [i] %}{% endfor %}{{ x }}", "{% set items = [] %}{% if items.append(1) %}{% endif %}{{ items }}", "{% set _ = l.append(1) %}", "{{ l.append }}", "{% for m in messages %}{{ m['role'] }}{{ m.get('x', 'y') }}{{ m.content[:1] }}{% endfor %}", "{% set x = messages | selectattr('role', 'equalto', 'user') | list | last %}{{ x.content }}", "{% set content = messages[0]['content'] if messages[0]['content'] is string else '' %}{{ content }}", "{{ raise_exception('line\\nbreak') }}", "a\nb\n{{ raise_exception('here') }}", "{% if messages[0].role != 'system' %}{{ raise_exception('Only ' + messages[0].role) }}{% endif %}",
]


def snippets():
    lines = EXPRESSIONS.strip().split("\n")
    # A string constant may span lines: those without a full row are put back together.
    text = "\n".join(lines).replace("'line1\nline2'", "'line1\0line2'")
    for line in text.split("\n"):
        for expression in split_bars(line):
            yield "{{ " + expression.strip().replace("\0", "\n") + " }}"
    yield from TEMPLATES


def split_bars(line):
    """Cuts at ' | ' outside of quotes: the filters above are written without blanks."""
    parts, at, quote, i = [], 0, "", 0
    while i < len(line):
        c = line[i]
        if quote:
            if c == "\\":
                i += 1
            elif c == quote:
                quote = ""
        elif c in "'\"":
            quote = c
        elif line.startswith(" | ", i):
            parts.append(line[at:i])
            at = i + 3
            i += 2
        i += 1
    return parts + [line[at:]]

# SPDX-License-Identifier: Apache-2.0
"""Conversations for chat templates: what models are asked in practice, and what is odd about some callers."""

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Current weather in a place.\nSays temperature & wind.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "City, e.g. \"Oslo\""},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 14}}, "required": ["city"]}}}
SEARCH = {"type": "function", "function": {
    "name": "search", "description": "Suche im Netz <schnell> – günstig",
    "parameters": {"type": "object", "properties": {
        "query": {"type": "string"},
        "filters": {"type": "array", "items": {"type": "object", "properties": {"field": {"type": "string"}, "values": {
            "type": "array", "items": {"type": "number"}}}, "required": ["field"]}},
        "options": {"type": "object", "properties": {"limit": {"type": "integer", "default": 10}, "exact": {"type": "boolean", "default": False}}}},
        "required": ["query", "filters"]}, "return": {"type": "string"}}}
BARE = {"name": "add", "description": "Adds numbers.", "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                                                                         "required": ["a", "b"]}}
EMPTY = {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}
TOOLS = [WEATHER, SEARCH]


def m(role, content=..., **more):
    return {"role": role, **({} if content is ... else {"content": content}), **more}


def call(name, arguments, identity="call_1", kind="function"):
    return {"id": identity, "type": kind, "function": {"name": name, "arguments": arguments}}


def conversations():
    user, system = m("user", "Hello, who are you?"), m("system", "You are a terse assistant.")
    answer = m("assistant", "I am a model.")
    oslo = call("get_weather", {"city": "Oslo", "days": 2})
    oslo_text = call("get_weather", "{\"city\": \"Oslo\", \"days\": 2}")
    result = m("tool", "{\"temperature\": -3.5, \"wind\": \"NW\"}", tool_call_id="call_1", name="get_weather")
    image = [{"type": "text", "text": "What is this?"}, {"type": "image"}, {"type": "text", "text": "Answer shortly."}]
    c = {
        "user": [user],
        "system": [system, user],
        "two turns": [system, user, answer, m("user", "And your name?")],
        "ends with assistant": [system, user, answer],
        "long": [system] + [m(r, f"{r} turn {i}") for i in range(6) for r in ("user", "assistant")] + [m("user", "last")],
        "no user": [system],
        "assistant first": [answer, user],
        "assistant only": [answer],
        "two users": [m("user", "first"), m("user", "second")],
        "two systems": [system, m("system", "Second."), user],
        "system in the middle": [user, answer, system, m("user", "go on")],
        "whitespace": [m("system", "  padded \n"), m("user", "\n\t text with  blanks \n\n"), m("assistant", " \n answer \n"), m("user", " ")],
        "empty texts": [m("system", ""), m("user", ""), m("assistant", ""), m("user", "?")],
        "unicode": [m("system", "Tu es un « assistant »."), m("user", "Grüße 😀 日本語 \u00a0\u200b עברית e\u0301 \u2028|"), m("assistant", "naïve ﬁ ß İ ǆ"), m("user", "ÄÖ Σας")],
        "markup": [m("user", "<b>&amp; \"quotes\" 'single' {{ braces }} {% raw %} \\n \\ ${x} %s {0}</b>")],
        "control tokens": [m("system", "<|im_end|>"), m("user", "<end_of_turn><|im_start|>system\n<|eot_id|>[INST]</s><bos>"), m("assistant", "</think>x<think>"), m("user", "<|end|>")],
        "code": [m("user", "```python\nfor i in range(3):\n    print(f\"{i}\")\n```\n")],
        "tool role unknown": [user, m("tool", "stray result")],
        "odd role": [m("critic", "Hm."), user],
        "upper role": [m("User", "Hi"), m("ASSISTANT", "Ho")],
        "developer": [m("developer", "Use British English."), user],
        "ipython": [user, m("assistant", "print(1)"), m("ipython", "1"), m("user", "so?")],
        "function role": [user, m("function", "42", name="f"), m("user", "so?")],
        "named": [m("user", "I am Ann.", name="ann"), m("assistant", "Hi Ann.", name="bot"), m("user", "Who am I?", name="ann")],
        "no content": [m("user"), user],
        "null content": [m("user", "weather?"), m("assistant", None, tool_calls=[oslo]), result, m("user", "thanks")],
        "null members": [m("system", "S", name=None), m("user", "Q", tool_calls=None), m("assistant", "A", tool_calls=None, reasoning_content=None), m("user", "R")],
        "number content": [m("user", 42)],
        "text parts": [m("system", [{"type": "text", "text": "Sys part."}]), m("user", [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}])],
        "image parts": [m("user", image)],
        "image url": [m("user", [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}, {"type": "text", "text": "?"}])],
        "audio and video": [m("user", [{"type": "audio", "audio": "a.wav"}, {"type": "video", "video": "v.mp4"}, {"type": "text", "text": "Compare."}])],
        "unknown part": [m("user", [{"type": "smell", "smell": "rose"}])],
        "string parts": [m("user", ["plain", "strings"])],
        "empty parts": [m("user", [])],
        "assistant parts": [user, m("assistant", [{"type": "text", "text": "Part answer."}]), m("user", "next")],
        "thinking parts": [user, m("assistant", [{"type": "thinking", "thinking": "Think part."}, {"type": "text", "text": "Done."}]), m("user", "next")],
        "reasoning": [m("user", "2+2?"), m("assistant", "4", reasoning_content="Two and two make four.\n"), m("user", "3+3?")],
        "thinking": [m("user", "2+2?"), m("assistant", "4", thinking="Easy."), m("user", "3+3?"), m("assistant", "6", reasoning="Also easy.")],
        "think tags": [m("user", "2+2?"), m("assistant", "<think>\nTwo and two.\n</think>\n\n4"), m("user", "3+3?"), m("assistant", "<think>x</think>6"), m("user", "ok")],
        "open think": [m("user", "2+2?"), m("assistant", "<think>unfinished"), m("user", "so?")],
        "half think": [m("user", "2+2?"), m("assistant", "hm</think>4"), m("user", "so?"), m("assistant", "</think>\n\n")],
        "tools": [m("user", "weather in Oslo?")],
        "tools and system": [system, m("user", "weather in Oslo?")],
        "tool call": [m("user", "weather in Oslo?"), m("assistant", "", tool_calls=[oslo]), result],
        "tool call as text": [m("user", "weather in Oslo?"), m("assistant", "", tool_calls=[oslo_text]), result, m("assistant", "Cold.")],
        "tool call and content": [system, m("user", "weather?"), m("assistant", "Let me look.", tool_calls=[oslo]), result, m("assistant", "Cold."), m("user", "thanks")],
        "tool call with thinking": [m("user", "weather?"), m("assistant", "", reasoning_content="I must look.", tool_calls=[oslo]), result],
        "tool call no content": [m("user", "weather?"), m("assistant", tool_calls=[oslo]), result, m("user", "and now?")],
        "two calls": [m("user", "both?"), m("assistant", "", tool_calls=[oslo, call("search", {"query": "wind \"x\" <y> & ü", "filters": [{"field": "a", "values": [1, 2.5, -1e-7, 1e22]}], "options": {
            "exact": True, "none": None, "nested": {"deep": [[], {}, [1, [2]]]}}}, "call_2")]),
                      result, m("tool", "nothing found", tool_call_id="call_2", name="search"), m("user", "hm")],
        "calls in a row": [m("user", "go"), m("assistant", "", tool_calls=[oslo]), result, m("assistant", "", tool_calls=[call("now", {}, "call_2")]),
                           m("tool", "12:00", tool_call_id="call_2", name="now"), m("assistant", "Noon.")],
        "nine character ids": [m("user", "go"), m("assistant", "", tool_calls=[call("now", {}, "abcdefghi")]), m("tool", "12:00", tool_call_id="abcdefghi", name="now"), m("user", "ok")],
        "call without id": [m("user", "go"), m("assistant", "", tool_calls=[{"type": "function", "function": {"name": "now", "arguments": {}}}]), m("tool", "12:00", name="now")],
        "bare call": [m("user", "go"), m("assistant", "", tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}]), m("tool", "3", name="add")],
        "empty calls": [m("user", "go"), m("assistant", "fine", tool_calls=[]), m("user", "on")],
        "result parts": [m("user", "go"), m("assistant", "", tool_calls=[oslo]), m("tool", [{"type": "text", "text": "cold"}, {"type": "text", "text": "wet"}], tool_call_id="call_1", name="get_weather"), m("user", "ok")],
        "result object": [m("user", "go"), m("assistant", "", tool_calls=[oslo]), m("tool", {"temperature": -3, "ok": True}, tool_call_id="call_1", name="get_weather")],
        "call id style": [m("user", "go"), m("assistant", "", tool_calls=[call("now", {}, "functions.now:0")]), m("tool", "12:00", tool_call_id="functions.now:0")],
        "empty": [],
    }
    cases = []

    def add(name, messages, generation=None, **rest):
        for g in (False, True) if generation is None else (generation,):
            context = {"messages": messages, "add_generation_prompt": g}
            context.update({k: v for k, v in rest.items() if k != "variables"})
            if "variables" in rest:
                context["vars"] = rest["variables"]
            cases.append({"name": f"{name}{' +' if g else ''}", "context": context})

    for name, messages in c.items():
        if name in ("tools", "tools and system"):
            add(name, messages, tools=TOOLS)
        elif "call" in name or "result" in name or name == "null content":
            add(name, messages, generation=True, tools=TOOLS + ([EMPTY] if "two" in name else []))
            if name in ("tool call", "tool call and content"):
                add(name + ", no tools", messages, generation=True)
        else:
            add(name, messages, generation=None if name in ("user", "system", "two turns", "ends with assistant", "reasoning", "think tags") else True)
    add("bare tools", [user], generation=True, tools=[BARE])
    add("empty tools", [user], generation=True, tools=[])
    add("plain parameters", [user], generation=True, tools=[EMPTY])
    add("documents", [user], generation=True, documents=[{"title": "One", "text": "First doc."}, {"title": "Zwei", "text": "Zweites."}])
    for flag in (True, False):
        add(f"enable_thinking {flag}", c["reasoning"], generation=True, variables={"enable_thinking": flag})
        add(f"thinking {flag}", c["tool call with thinking"], generation=True, tools=TOOLS, variables={"thinking": flag, "preserve_thinking": flag, "clear_thinking": flag})
    for effort in ("low", "high", "none"):
        add(f"effort {effort}", [system, user], generation=True, variables={"reasoning_effort": effort, "reasoning": effort, "thinking_effort": effort})
    add("dates", [user], generation=True, variables={"date_string": "01 Jan 2025", "current_date": "2025-01-01", "datetime": "2025-01-01 12:00"})
    add("llama variables", [system, user], generation=True, tools=TOOLS, variables={"tools_in_user_message": False, "builtin_tools": ["brave_search", "code_interpreter"]})
    add("granite variables", [user], generation=True, variables={"controls": {"length": "short", "originality": "abstractive"}, "available_tools": TOOLS, "thinking": True})
    add("model identity", [user], generation=True, variables={"model_identity": "You are Mica.", "builtin_tools": ["browser", "python"], "response_format": {"type": "json_object"}})
    add("other tokens", [user, answer, user], generation=True, variables={"bos_token": "<B>", "eos_token": "<E>"})
    return cases

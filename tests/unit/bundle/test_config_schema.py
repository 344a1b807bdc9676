"""The configuration's schema: a small subset, strict, and bounded in cost."""

from __future__ import annotations

import pytest

from sandbox_host.bundle.config_schema import apply_schema, check_schema, validate_config
from sandbox_host.reading import BadValueError

SCHEMA = {
    "type": "object",
    "description": "what the model needs",
    "properties": {
        "model_type": {"type": "string", "enum": ["transformer", "linear"]},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2, "default": 0.7},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        "nested": {"type": "object", "properties": {"deep": {"type": "integer", "default": 3}}},
        "maybe": {"type": ["string", "null"]},
    },
    "required": ["model_type"],
    "additionalProperties": False,
}


def test_a_good_schema_and_configuration():
    check_schema(SCHEMA)
    given = {"model_type": "linear", "nested": {}, "maybe": None, "names": ["a"]}
    assert apply_schema(SCHEMA, given) == {
        "model_type": "linear",
        "temperature": 0.7,
        "nested": {"deep": 3},
        "maybe": None,
        "names": ["a"],
    }
    assert given == {"model_type": "linear", "nested": {}, "maybe": None, "names": ["a"]}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config.model_type: missing; the schema requires it"),
        ({"model_type": 1}, "config.model_type: expected text, got 1"),
        (
            {"model_type": "x"},
            'config.model_type: expected one of "transformer", "linear", got "x"',
        ),
        ({"temperature": True}, "config.temperature: expected a number, got true"),
        ({"temperature": -1}, "config.temperature: expected at least 0, got -1"),
        ({"temperature": 2.5}, "config.temperature: expected at most 2, got 2.5"),
        ({"names": ["abcd"]}, "config.names[0]: expected at most 3 characters, got 4"),
        ({"names": ["a", "b", "c"]}, "config.names: expected at most 2 entries, got 3"),
        ({"nested": {"deep": 1.0}}, "config.nested.deep: expected a whole number, got 1.0"),
        ({"maybe": 3}, "config.maybe: expected text or null, got 3"),
        ({"temprature": 1}, 'config.temprature: unknown key; did you mean "temperature"?'),
    ],
)
def test_a_value_that_does_not_meet_it(config, message):
    given = config if not config or "model_type" in config else {"model_type": "linear", **config}
    with pytest.raises(BadValueError) as caught:
        apply_schema(SCHEMA, given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "config_schema: expected an object, got a list"),
        ({"type": "array"}, "config_schema.type: expected object"),
        ({"type": []}, "config_schema.type: expected at least one type"),
        ({"type": "float"}, "config_schema.type: expected one of string, integer"),
        ({"$ref": "#"}, 'config_schema."$ref": unknown key'),
        ({"minLength": True}, "config_schema.minLength: expected a whole number, got true"),
        ({"minimum": "1"}, 'config_schema.minimum: expected a number, got "1"'),
        ({"minimum": 2, "maximum": 1}, "config_schema.minimum: is greater than maximum"),
        ({"type": "object", "maxLength": 1}, "config_schema.maxLength: applies to the type string"),
        ({"enum": []}, "config_schema.enum: expected 1 to 256 values, got 0"),
        ({"enum": [[]]}, "config_schema.enum[0]: expected text"),
        ({"required": "a"}, 'config_schema.required: expected a list, got "a"'),
        (
            {"additionalProperties": {}},
            "config_schema.additionalProperties: expected true or false",
        ),
        ({"items": 3}, "config_schema.items: expected an object, got 3"),
        (
            {"properties": {"a": {"type": "integer", "default": True}}},
            "config_schema.properties.a.default: expected a whole number, got true",
        ),
        ({"properties": {"a b": {"typ": 1}}}, 'config_schema.properties."a b".typ: unknown key'),
    ],
)
def test_a_bad_schema(schema, message):
    with pytest.raises(BadValueError) as caught:
        check_schema(schema)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("value", "ok"), [(1, True), (1.0, True), (True, False), ("1", False)])
def test_enum_tells_true_from_one(value, ok):
    schema = {"enum": [1]}
    if ok:
        assert apply_schema(schema, value) == value
    else:
        with pytest.raises(BadValueError, match="expected one of 1"):
            apply_schema(schema, value)


def test_enabled_is_the_hosts_own_key():
    schema = {"type": "object", "properties": {"a": {"default": 1}}, "additionalProperties": False}
    assert validate_config(schema, {"enabled": True}) == {"a": 1, "enabled": True}
    assert validate_config(None, {"enabled": False, "x": [1]}) == {"enabled": False, "x": [1]}
    with pytest.raises(BadValueError, match=r"config\.enabled: expected true or false"):
        validate_config(schema, {"enabled": 1})


def test_without_a_schema_the_copy_shares_nothing():
    config = {"a": [1, {"b": 2}]}
    copied = validate_config(None, config)
    copied["a"][1]["b"] = 3
    assert config["a"][1]["b"] == 2


def test_defaults_cannot_multiply_without_bound():
    schema = {"items": {"properties": {"x": {"default": list(range(5_000))}}}}
    check_schema(schema)
    with pytest.raises(BadValueError, match="too much work"):
        apply_schema(schema, [{} for _ in range(5_000)])


def test_checking_nested_defaults_is_bounded():
    schema = {"items": {"properties": {f"p{i}": {} for i in range(200)}}, "default": [{}] * 2_000}
    for _ in range(12):
        schema = {"properties": {"a": schema}, "default": {}}
    with pytest.raises(BadValueError, match="too much work"):
        check_schema(schema)


def test_hostile_names_of_properties_are_not_shown_as_they_are():
    schema = {"properties": {"\x1b[2J": {}}, "additionalProperties": False}
    for key in ("x", "\x1b[2j"):
        with pytest.raises(BadValueError) as caught:
            apply_schema(schema, {key: 1})
        assert str(caught.value).isprintable()
    schema = {"properties": {f"p{i}": {} for i in range(900)}, "additionalProperties": False}
    with pytest.raises(BadValueError) as caught:
        apply_schema(schema, {"zzzzzzzz": 1})
    assert len(str(caught.value)) < 400

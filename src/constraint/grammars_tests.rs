//! Masks of small grammars over a vocabulary of bytes, and what is refused in bounded time.

use super::*;
use crate::constraint::{Call, Mask, Masks};
use crate::text::fixtures::bytes_alone;
use serde_json::{Value, json};
use std::sync::mpsc::{Receiver, channel};

const END: u32 = 256;

/// One answer in the making.
struct Walk {
    masks: Masks,
    ready: Receiver<()>,
}

impl Walk {
    fn begin(constraint: &Constraint) -> Walk {
        let (sender, ready) = channel();
        let masks = constraint.begin(move || {
            let _ = sender.send(());
        });
        Walk { masks, ready }
    }

    fn mask(&mut self) -> Result<Mask, ConstraintError> {
        self.ready.recv().expect("a mask comes");
        self.masks.take().expect("it has come")
    }

    /// What may come next after `text`, as bytes; the end is `$`.
    fn after(mut self, text: &str) -> Option<String> {
        for byte in text.bytes() {
            if !self.mask().expect("no limit").allows(byte.into()) {
                return None;
            }
            self.masks.advance(byte.into());
        }
        let mask = self.mask().expect("no limit");
        let shown = |id: u32| if id == END { '$' } else { char::from(id as u8) };
        Some(mask.tokens().map(shown).collect())
    }
}

fn compiled(shape: Shape) -> Constraint {
    Grammars::new(Arc::new(bytes_alone()))
        .compile(&shape)
        .unwrap_or_else(|error| panic!("{shape:?}: {error}"))
        .constraint
}

#[test]
fn only_what_can_still_fit_comes_next() {
    let schema = |schema: Value| Shape::JsonSchema { schema, strict: true };
    let flag = schema(json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
        "additionalProperties": false}));
    // Its `$ref` is to its own definitions.
    let arguments = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"],
        "additionalProperties": false, "$defs": {"n": {"const": 1}}});
    let calls = |most| {
        let call = Call { before: "<f>".into(), arguments: arguments.clone(), after: ">".into() };
        Shape::Calls { calls: vec![call], between: ";".into(), most }
    };
    let table = [
        (Shape::Choice(vec!["ab".into(), "ac".into()]), "", Some("a")),
        (Shape::Choice(vec!["ab".into(), "ac".into()]), "a", Some("bc")),
        (Shape::Choice(vec!["ab".into(), "ac".into()]), "ab", Some("$")),
        (Shape::Choice(vec!["a\"\n".into()]), "a\"", Some("\n")),
        (Shape::Regex("^x{1,2}$".into()), "x", Some("x$")),
        (Shape::Regex("x{1,2}".into()), "xx", Some("$")),
        (Shape::Grammar("start: \"a\" | \"b\" \"c\"".into()), "b", Some("c")),
        (Shape::Grammar("root ::= ab+\nab ::= [ab] \"-\"?".into()), "a", Some("-ab$")),
        (flag.clone(), "{\"a\":t", Some("r")),
        (flag.clone(), "{\"a\":true} ", None),
        (flag, "{\"b", None),
        (schema(json!({"enum": ["é"]})), "\"", Some("Ã")),
        (calls(1), "<f>", Some("{")),
        (calls(1), "<f>{\"n\":1", None),
        (calls(1), "<f>{\"a\":1}>", Some("$")),
        (calls(2), "<f>{\"a\":1}>", Some(";$")),
    ];
    for (shape, text, next) in table {
        let found = Walk::begin(&compiled(shape.clone())).after(text);
        assert_eq!(found.as_deref(), next, "{shape:?} after `{text}`");
    }
}

#[test]
fn answers_of_one_constraint_share_nothing() {
    let constraint = compiled(Shape::Choice(vec!["ab".into(), "cd".into()]));
    let (first, second) = (Walk::begin(&constraint), Walk::begin(&constraint));
    assert_eq!(first.after("a").as_deref(), Some("b"));
    assert_eq!(second.after("c").as_deref(), Some("d"));
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let grammars = Grammars::new(Arc::new(bytes_alone()));
    let schema = |schema: Value| Shape::JsonSchema { schema, strict: true };
    let table = [
        schema(json!({"$ref": "http://127.0.0.1:9/x"})),
        schema(json!({"$ref": "file:///etc/passwd"})),
        schema(json!({"$ref": "#/nothing"})),
        schema(json!({"$id": "::::", "$ref": "%%%"})),
        schema(json!({"type": "strange"})),
        schema(json!({"type": "array", "uniqueItems": true})),
        schema(json!({"minimum": "a", "type": "integer"})),
        schema(json!({"type": "integer", "minimum": 3, "maximum": 2})),
        schema(json!({"type": "string", "pattern": "(?=a)"})),
        schema(json!({"type": "string", "pattern": "("})),
        schema(json!(false)),
        schema(json!({"x-guidance": 1, "type": "strange"})),
        Shape::Regex("(a".into()),
        Shape::Regex(r"(?<x>a)\k<x>".into()),
        Shape::Grammar("start: nothing".into()),
        Shape::Grammar("\u{0}".into()),
        Shape::Grammar("start: \"a\" %json {".into()),
    ];
    for shape in table {
        let error = grammars.compile(&shape).expect_err(&format!("{shape:?}"));
        let message = error.to_string();
        assert!(message.len() < 600 && !message.contains("panic") && !message.contains(".rs"), "{message}");
    }
}

/// Shapes that are small to send and large to build end in an error or in a constraint, in the time that is allowed, and
/// their masks in an error or a mask.
#[test]
fn costly_shapes_are_bounded() {
    let grammars = Grammars::new(Arc::new(bytes_alone()));
    let schema = |schema: Value| Shape::JsonSchema { schema, strict: false };
    let mut nested = json!({"type": "string"});
    for _ in 0..50 {
        nested = json!({"anyOf": [nested.clone(), {"type": "array", "items": {"type": "integer"}}]});
    }
    let doubled: serde_json::Map<String, Value> = (0..40)
        .map(|i| (format!("d{i}"), json!({"allOf": [{"$ref": format!("#/$defs/d{}", i + 1)}, {"$ref": format!("#/$defs/d{}", i + 1)}]})))
        .chain([("d40".to_owned(), json!({"type": "object"}))])
        .collect();
    let table = [
        Shape::Regex("((a{1,200}){1,200}){1,200}".into()),
        Shape::Regex("(a|aa|aaa|b)*c{1000}".into()),
        Shape::Regex("(.*a.{60}){3}".into()),
        schema(json!({"type": "string", "minLength": 100_000})),
        schema(json!({"type": "array", "items": {"type": "boolean"}, "minItems": 1_000_000_000})),
        schema(nested),
        schema(json!({"$ref": "#/$defs/d0", "$defs": doubled})),
        schema(json!({"$ref": "#"})),
        schema(json!({"enum": (0..3000).map(|i| format!("value {i}")).collect::<Vec<_>>()})),
        Shape::Grammar("start: start start | \"a\"".into()),
        Shape::Grammar(format!("start: {}", "\"a\"? ".repeat(3000))),
    ];
    for shape in table {
        let shown: String = format!("{shape:?}").chars().take(80).collect();
        let begun = std::time::Instant::now();
        if let Ok(Compiled { constraint, .. }) = grammars.compile(&shape) {
            let mut walk = Walk::begin(&constraint);
            for _ in 0..20 {
                let Ok(mask) = walk.mask() else { break };
                let Some(id) = mask.tokens().next().filter(|id| *id != END) else { break };
                walk.masks.advance(id);
            }
        }
        // Ten times what is allowed, for a machine that is busy.
        assert!(begun.elapsed().as_secs() < 60, "{shown}");
    }
}

//! Tests of the projector: its arithmetic on small numbers, its file, and what it does without enough history.

use super::*;
use crate::weights::safetensors::StoredType;

/// e = 2, k = 1, d_model = 3; one layer that copies the pooled vector.
fn parts(form: Form) -> Parts {
    let inputs = form.input_width(2);
    Parts {
        form,
        k: 1,
        d_model: 3,
        e: 2,
        constant: vec![1.0, 2.0, 3.0],
        centre: vec![0.0; inputs],
        scale: 2.0,
        layers: vec![Layer {
            weight: match form {
                Form::Static => vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
                Form::InputAware => vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            },
            bias: vec![0.0; 3],
        }],
        query: if form == Form::InputAware { vec![1.0, 0.0, 0.0, 1.0] } else { Vec::new() },
        temperature: 0.01,
        static_mean: vec![0.0; 2],
        variance_between: 1.0,
        variance_within: 1.0,
        n0: 0.0,
        n_min: 1.0,
        cap: 100.0,
        weights: Digest::of(b"w"),
        encoder: Digest::of(b"e"),
        encoder_name: "all-minilm-l6-v2".to_owned(),
        data: Digest::of(b"d"),
        recipe: "test".to_owned(),
    }
}

fn item(embedding: &[f32; 2], weight: f32) -> WeightedEmbedding<'_> {
    WeightedEmbedding { embedding, weight }
}

fn build(parts: &Parts) -> Projector {
    Projector::from_parts(parts, StoredType::F32).unwrap()
}

const X: [f32; 2] = [1.0, 0.0];
const Y: [f32; 2] = [0.0, 1.0];

#[test]
fn static_prompts() {
    let plain = parts(Form::Static);
    let items = [item(&X, 1.0), item(&Y, -1.0)];
    for (parts, items, expected) in [
        // (X - Y) / 2, times the scale of 2.
        (plain.clone(), &items[..], vec![2.0, 1.0, 3.0]),
        (Parts { centre: vec![0.5, 0.0], ..plain.clone() }, &items[..], vec![1.0, 1.0, 3.0]),
        (Parts { n0: 2.0, ..plain.clone() }, &items[..], vec![1.5, 1.5, 3.0]),
        // The change has norm 2.
        (Parts { cap: 0.5, ..plain.clone() }, &items[..1], vec![1.5, 2.0, 3.0]),
        (plain.clone(), &items[1..], vec![1.0, 0.0, 3.0]),
    ] {
        let rows = build(&parts).static_prompt(items);
        assert_eq!((rows.values, rows.k, rows.effect), (expected, 1, true), "{parts:?}");
    }
}

#[test]
fn two_layers_have_gelu_between_them() {
    let mut parts = parts(Form::Static);
    let first = Layer { weight: vec![1.0, 0.0], bias: vec![-1.0] };
    parts.layers = vec![first, Layer { weight: vec![1.0, 2.0, 0.0], bias: vec![0.0, 0.0, 1.0] }];
    // 2 - 1 = 1; gelu(1) = .841192 in the tanh form.
    let values = build(&parts).static_prompt(&[item(&X, 1.0)]).values;
    for (value, expected) in values.iter().zip([1.841_192, 3.682_384, 4.0]) {
        assert!((value - expected).abs() < 1e-5, "{values:?}");
    }
}

#[test]
fn without_enough_history_it_is_the_constant_prompt() {
    let plain = parts(Form::Static);
    let tight = Parts { variance_between: 1e-4, variance_within: 1e-4, ..plain.clone() };
    let wide = [1.0f32];
    for (name, parts, items) in [
        ("empty", &plain, vec![]),
        ("short", &plain, vec![item(&X, 0.5)]),
        ("only zero weights", &plain, vec![item(&X, 0.0); 9]),
        ("odd", &tight, vec![item(&X, 1.0); 9]),
        ("another encoder's", &plain, vec![WeightedEmbedding { embedding: &wide, weight: 1.0 }]),
        ("not finite", &plain, vec![item(&X, f32::NAN)]),
    ] {
        let projector = build(parts);
        assert_eq!(projector.static_prompt(&items), projector.constant(), "{name}");
    }
    assert!(build(&plain).static_prompt(&vec![item(&X, 1.0); 9]).effect);
}

#[test]
fn attention_chooses_what_is_near_the_request() {
    let projector = build(&parts(Form::InputAware));
    let items = [item(&X, 0.5), item(&Y, -1.0)];
    // Coordinates: sum of a w e (2), sum of a w; all times the scale, plus the constant.
    assert_eq!(projector.input_aware_prompt(&items, &X).values, [2.0, 2.0, 4.0]);
    assert_eq!(projector.input_aware_prompt(&items, &Y).values, [1.0, 0.0, 1.0]);
    assert_eq!(projector.static_prompt(&items), projector.constant());
    assert_eq!(projector.input_aware_prompt(&items, &[1.0]), projector.constant());
}

#[test]
fn files_round_trip() {
    for form in [Form::Static, Form::InputAware] {
        let projector = build(&parts(form));
        let again = Projector::read(&projector.write()).unwrap();
        assert_eq!(again.parts(), &parts(form));
        assert_eq!(again.digest(), projector.digest());
        assert_eq!((again.k(), again.d_model(), again.form()), (1, 3, form));
        let half = Projector::from_parts(&parts(form), StoredType::F16).unwrap();
        assert!(half.write().len() < projector.write().len());
    }
}

#[test]
fn bad_files_are_refused() {
    let good = parts(Form::Static);
    for (part, parts) in [
        ("`k` is `65`", Parts { k: 65, ..good.clone() }),
        (
            "`constant` has a value that is not finite, at 1",
            Parts { constant: vec![0.0, f32::NAN, 0.0], ..good.clone() },
        ),
        ("metadata `scale` is `0`", Parts { scale: 0.0, ..good.clone() }),
        ("metadata `cap` is `NaN`", Parts { cap: f32::NAN, ..good.clone() }),
        ("`layers.0.weight` is missing", Parts { layers: Vec::new(), ..good.clone() }),
        ("`centre` has shape", Parts { centre: vec![0.0; 3], ..good.clone() }),
        (
            "`layers.0.weight` has shape",
            Parts { layers: vec![Layer { weight: vec![0.0; 9], bias: vec![0.0; 3] }], ..good.clone() },
        ),
    ] {
        let error = Projector::from_parts(&parts, StoredType::F32).unwrap_err().to_string();
        assert!(error.contains(part), "expected {part}: {error}");
    }
    let bytes = build(&good).write();
    for (part, bytes) in [
        ("shorter than 8 bytes", Vec::new()),
        ("the file has", bytes[..bytes.len() - 1].to_vec()),
        ("at most 65536", vec![0xff; 64]),
    ] {
        let error = Projector::read(&bytes).unwrap_err().to_string();
        assert!(error.contains(part), "expected {part}: {error}");
    }
    let text = String::from_utf8_lossy(&bytes).replace("projector/1", "projector/2");
    assert!(Projector::read(text.as_bytes()).is_err());
}

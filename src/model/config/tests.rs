//! Settings of both containers: what is refused, and by which name.

use crate::model::{Model, ModelConfig, ModelError};
use crate::store::tests::Folder;
use crate::weights::safetensors::write;
use crate::weights::{Container, GgufWriter, ModelFile};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The configuration of a folder with this `config.json` and an embedding table of 8 rows.
fn of_folder(config: &Value) -> Result<ModelConfig, ModelError> {
    let folder = Folder::new("config");
    std::fs::write(folder.0.join("config.json"), config.to_string()).unwrap();
    let weights = write(&BTreeMap::new(), &[("model.embed_tokens.weight", &[8, 1], &[0.0; 8])]);
    std::fs::write(folder.0.join("model.safetensors"), weights).unwrap();
    Model::read_config(&Container::open(&folder.0).unwrap())
}

/// A llama with these fields changed; `null` takes a field away.
fn folder_with(changes: Value) -> Result<ModelConfig, ModelError> {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    of_folder(&config)
}

/// The configuration of a GGUF file of an architecture with further keys.
fn gguf_with(architecture: &str, change: impl Fn(&mut GgufWriter)) -> Result<ModelConfig, ModelError> {
    let mut writer = GgufWriter::new();
    writer.string("general.architecture", architecture);
    for (name, value) in [
        ("block_count", 4),
        ("context_length", 4096),
        ("embedding_length", 64),
        ("feed_forward_length", 96),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        writer.u32(&format!("{architecture}.{name}"), value);
    }
    writer.f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5);
    writer.tensor_f32("token_embd.weight", &[8, 1], &[0.0; 8]);
    change(&mut writer);
    let file = ModelFile::from_bytes(Path::new("x.gguf"), writer.to_bytes().unwrap()).unwrap();
    Model::read_config(&file.into())
}

#[test]
fn folders_are_refused_by_the_name_of_the_setting() {
    for (changes, part) in [
        (json!({"model_type": "deepseek_v3"}), "architecture `deepseek_v3` is not supported"),
        (json!({"model_type": null}), "`config.json:model_type` is missing"),
        (json!({"model_type": 3}), "`config.json:model_type` is something else"),
        (json!({"hidden_size": null}), "`config.json:hidden_size` is missing"),
        (json!({"hidden_size": 1e9}), "`config.json:hidden_size` is no whole number"),
        (json!({"hidden_size": -5}), "allowed: 1 to 131072"),
        (
            json!({"num_hidden_layers": 4_000_000}),
            "`config.json:num_hidden_layers` is 4000000; allowed: 1 to 1024",
        ),
        (json!({"num_key_value_heads": 3}), "`config.json:num_key_value_heads` is 3; allowed: a divisor of"),
        (json!({"head_dim": 20}), "`config.json:head_dim` is 20; allowed: a multiple of 16"),
        (json!({"partial_rotary_factor": 0.5}), "`config.json:partial_rotary_factor` is 8; allowed: 16"),
        (json!({"hidden_act": "relu"}), "`config.json:hidden_act` is relu; allowed: silu"),
        (json!({"attention_bias": true}), "`config.json:attention_bias` is set; allowed: false"),
        (json!({"mlp_bias": true}), "`config.json:mlp_bias` is set"),
        (json!({"quantization_config": {"bits": 4}}), "`config.json:quantization_config` is set"),
        (json!({"rms_norm_eps": "small"}), "`config.json:rms_norm_eps` is no number"),
        (json!({"rope_scaling": 8}), "`config.json:rope_scaling` is something else; allowed: an object"),
        (
            json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
            "`config.json:rope_scaling.rope_type` is dynamic; allowed: default, linear, llama3, yarn, longrope",
        ),
        (json!({"rope_scaling": {"type": "linear"}}), "`config.json:rope_scaling.factor` is missing"),
        (
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0,
                                       "original_max_position_embeddings": 64}}),
            "`config.json:rope_parameters.mscale` is set",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0],
                                    "original_max_position_embeddings": 64}}),
            "`config.json:rope_scaling.short_factor` is something else; allowed: 8 positive numbers",
        ),
        (
            json!({"model_type": "gemma3_text", "hidden_act": "gelu_pytorch_tanh", "head_dim": 16,
                   "rope_parameters": {"rope_type": "linear", "factor": 8.0}}),
            "`config.json:rope_parameters` is one for all blocks; allowed: an object with `full_attention`",
        ),
        (json!({"layer_types": ["full_attention"]}), "`config.json:layer_types` is something else"),
        (json!({"layer_types": vec!["chunked_attention"; 4]}), "`config.json:layer_types` is something else"),
    ] {
        let error = folder_with(changes.clone()).err().unwrap_or_else(|| panic!("{changes} is accepted"));
        assert!(error.to_string().contains(part), "expected {part}: {error}");
    }
}

#[test]
fn windows_of_folders() {
    let windows = |changes: Value| -> Vec<u32> {
        let config = folder_with(changes).unwrap();
        config.blocks.iter().map(|block| block.window.unwrap_or(0)).collect()
    };
    for (changes, expected) in [
        (json!({"model_type": "mistral", "sliding_window": null}), [0; 4]),
        (json!({"model_type": "mistral"}), [4096; 4]),
        (json!({"model_type": "mistral", "sliding_window": 7}), [7; 4]),
        (json!({"model_type": "qwen2", "sliding_window": 7}), [0; 4]),
        (json!({"model_type": "qwen2", "sliding_window": 7, "use_sliding_window": false}), [0; 4]),
        (
            json!({"model_type": "qwen2", "sliding_window": 7, "use_sliding_window": true, "max_window_layers": 3}),
            [0, 0, 0, 7],
        ),
        (
            json!({"model_type": "gemma2", "hidden_act": "gelu_pytorch_tanh", "sliding_window": 9}),
            [9, 0, 9, 0],
        ),
        (
            json!({"model_type": "gemma3_text", "sliding_window": 9, "sliding_window_pattern": 3}),
            [9, 9, 0, 9],
        ),
    ] {
        assert_eq!(windows(changes.clone()), expected, "{changes}");
    }
}

/// Models that also see leave out what their family fills in.
#[test]
fn the_text_part_of_a_model_that_sees() {
    let text = json!({
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    });
    let config = of_folder(&json!({"model_type": "gemma3", "text_config": text})).unwrap();
    assert_eq!((config.n_heads, config.n_kv_heads, config.d_head), (8, 4, 256));
    assert_eq!((config.rotaries[0].base, config.rotaries[0].linear_factor), (1e6, 8.0));
    assert_eq!((config.rotaries[1].base, config.rotaries[1].linear_factor), (1e4, 1.0));
    assert_eq!(config.blocks.iter().filter(|block| block.window.is_none()).count(), 5);
    assert_eq!((config.attention_softcap, config.trained_context), (None, 131_072));
}

#[test]
fn gguf_files_are_refused_by_the_name_of_the_key() {
    type Change = fn(&mut GgufWriter);
    let cases: [(&str, Change, &str); 13] = [
        ("mamba", |_| {}, "architecture `mamba` is not supported; supported are: llama, mistral, qwen2"),
        (
            "llama",
            |w| {
                w.string("llama.rope.scaling.type", "longrope");
            },
            "`llama.rope.scaling.type` is longrope; allowed: none, linear, yarn",
        ),
        (
            "llama",
            |w| {
                w.u32("llama.expert_count", 8);
            },
            "`llama.expert_count` is 8",
        ),
        (
            "llama",
            |w| {
                w.u32("llama.rope.dimension_count", 8);
            },
            "`llama.rope.dimension_count` is 8; allowed: 16",
        ),
        (
            "phi3",
            |w| {
                w.u32("phi3.rope.dimension_count", 7);
            },
            "an even number up to 16",
        ),
        (
            "llama",
            |w| {
                w.tensor_f32("rope_freqs.weight", &[3], &[1.0; 3]);
            },
            "tensor `rope_freqs.weight` has shape [3]",
        ),
        (
            "llama",
            |w| {
                w.tensor_f32("rope_freqs.weight", &[8], &[0.0; 8]);
            },
            "allowed: positive numbers",
        ),
        (
            "qwen3",
            |w| {
                w.tensor_f32("rope_freqs.weight", &[8], &[1.0; 8]);
            },
            "`rope_freqs.weight` belongs to nothing",
        ),
        (
            "phi3",
            |w| {
                w.tensor_f32("rope_freqs.weight", &[8], &[1.0; 8]);
            },
            "`rope_freqs.weight` belongs to nothing",
        ),
        (
            "qwen2",
            |w| {
                w.tensor_f32("rope_factors_long.weight", &[8], &[1.0; 8]);
            },
            "`rope_factors_long.weight` belongs to nothing",
        ),
        (
            "phi3",
            |w| {
                w.tensor_f32("rope_factors_long.weight", &[8], &[1.0; 8]);
            },
            "`rope_factors_short.weight` is missing",
        ),
        (
            "gemma2",
            |w| {
                w.f32("gemma2.attn_logit_softcapping", 0.0);
            },
            "`gemma2.attn_logit_softcapping` is 0",
        ),
        (
            "gemma3",
            |w| {
                w.bool_array("gemma3.attention.sliding_window_pattern", &[true]);
            },
            "`gemma3.attention.sliding_window_pattern` is a list of 1; allowed: 4 values",
        ),
    ];
    for (architecture, change, part) in cases {
        let error = gguf_with(architecture, change).err().unwrap_or_else(|| panic!("accepted: {part}"));
        assert!(error.to_string().contains(part), "expected {part}: {error}");
    }
}

/// Files do not say what these families all have.
#[test]
fn what_gguf_files_leave_out() {
    let windowed =
        |config: &ModelConfig| config.blocks.iter().map(|block| block.window.is_some()).collect::<Vec<_>>();
    let gemma2 = gguf_with("gemma2", |_| {}).unwrap();
    assert_eq!((gemma2.attention_softcap, gemma2.logit_softcap), (Some(50.0), Some(30.0)));
    assert_eq!(windowed(&gemma2), [true, false, true, false]);
    let gemma3 = gguf_with("gemma3", |w| {
        w.u32("gemma3.attention.sliding_window_pattern", 2);
    })
    .unwrap();
    assert_eq!(windowed(&gemma3), [true, false, true, false]);
    assert_eq!((gemma3.rotaries[0].base, gemma3.rotaries[1].base), (1e6, 1e4));
    let phi3 = gguf_with("phi3", |w| {
        w.u32("phi3.attention.sliding_window", 0);
    })
    .unwrap();
    assert_eq!(windowed(&phi3), [false; 4]);
    // The largest model of each gemma family scales scores by the model's width per head.
    let wide = gguf_with("gemma2", |w| {
        w.u32("gemma2.block_count", 46).u32("gemma2.attention.key_length", 64);
    });
    assert_eq!(wide.unwrap().attention_scale, 0.25);
}

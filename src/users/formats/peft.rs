//! `adapter_config.json` of Hugging Face PEFT: prompt tuning, and what it stores of p-tuning.

use super::table::RowTable;
use super::{UsersError, shown};
use crate::limits::ADAPTER_CONFIG_BYTES_MAX;
use serde::Deserialize;
use serde_json::json;

/// Names of the two files of an adapter.
pub const CONFIG: &str = "adapter_config.json";
pub const ADAPTER: &str = "adapter_model.safetensors";
/// Name of the tensor in it.
pub(super) const TENSOR: &str = "prompt_embeddings";

/// Kinds of adapters whose stored result is rows of input embeddings. For p-tuning that is what its encoder gives.
const KINDS: [&str; 2] = ["PROMPT_TUNING", "P_TUNING"];

/// A configuration that was checked as far as it can be by itself.
#[derive(Debug)]
pub struct Peft {
    rows: Option<u64>,
    d_model: Option<u64>,
    /// As the file names it; at most 200 characters.
    pub base_model: Option<String>,
}

/// Fields that matter; PEFT writes many more.
#[derive(Deserialize)]
struct ConfigJson {
    peft_type: String,
    task_type: Option<String>,
    num_virtual_tokens: Option<u64>,
    token_dim: Option<u64>,
    num_transformer_submodules: Option<u64>,
    base_model_name_or_path: Option<String>,
}

impl Peft {
    pub fn read(bytes: &[u8]) -> Result<Peft, UsersError> {
        let bad = |rule: String| UsersError::SoftPromptFile { rule: format!("{CONFIG}: {rule}") };
        if bytes.len() > ADAPTER_CONFIG_BYTES_MAX {
            let bytes = bytes.len();
            return Err(bad(format!("{bytes} bytes; at most {ADAPTER_CONFIG_BYTES_MAX} are read")));
        }
        let json: ConfigJson = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if !KINDS.contains(&json.peft_type.as_str()) {
            let given = shown(&json.peft_type);
            return Err(bad(format!("`peft_type` is {given}; supported are {}", KINDS.join(", "))));
        }
        if let Some(task) = json.task_type.filter(|task| task != "CAUSAL_LM") {
            return Err(bad(format!("`task_type` is {}; supported is CAUSAL_LM", shown(&task))));
        }
        if let Some(parts) = json.num_transformer_submodules.filter(|parts| *parts != 1) {
            return Err(bad(format!("`num_transformer_submodules` is {parts}; supported is 1")));
        }
        let base_model = json.base_model_name_or_path.map(|name| name.chars().take(200).collect::<String>());
        Ok(Peft { rows: json.num_virtual_tokens, d_model: json.token_dim, base_model })
    }

    /// Whether the configuration speaks of this table.
    pub(super) fn check(&self, table: &RowTable) -> Result<(), UsersError> {
        for (key, given, found) in
            [("num_virtual_tokens", self.rows, table.rows()), ("token_dim", self.d_model, table.d_model())]
        {
            if let Some(given) = given.filter(|given| *given != found as u64) {
                let rule = format!("{CONFIG}: `{key}` is {given}, the file has {found}");
                return Err(UsersError::SoftPromptFile { rule });
            }
        }
        Ok(())
    }

    /// A configuration that PEFT loads the table with.
    pub fn write(table: &RowTable, base_model: &str) -> Result<Vec<u8>, UsersError> {
        let config = json!({
            "peft_type": "PROMPT_TUNING",
            "task_type": "CAUSAL_LM",
            "inference_mode": true,
            "base_model_name_or_path": base_model,
            "num_virtual_tokens": table.rows(),
            "token_dim": table.d_model(),
            "num_transformer_submodules": 1,
            "prompt_tuning_init": "RANDOM",
        });
        serde_json::to_vec_pretty(&config).map_err(|error| UsersError::Internal(error.to_string()))
    }
}

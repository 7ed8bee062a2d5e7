//! Files that hold soft prompts: PEFT adapters and plain safetensors, read with suspicion and written so that others read
//! them. What the loaded model says to the numbers is `soft_prompts`' matter.

mod peft;
mod table;

pub use peft::{ADAPTER, CONFIG, Peft};
pub use table::RowTable;

use super::error::UsersError;
use crate::limits;
use crate::weights::Safetensors;
use crate::weights::safetensors::{self, Bounds};
use std::collections::BTreeMap;

/// The formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A zip of `adapter_config.json` and `adapter_model.safetensors`.
    Peft,
    /// One tensor `prompt_embeddings`.
    Safetensors,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Peft => "peft",
            Format::Safetensors => "safetensors",
        }
    }

    pub fn parse(name: &str, param: &str) -> Result<Format, UsersError> {
        [Format::Peft, Format::Safetensors].into_iter().find(|format| format.name() == name).ok_or_else(
            || UsersError::item(param, "no format of soft prompts; allowed: `peft`, `safetensors`"),
        )
    }
}

/// What was read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    pub table: RowTable,
    /// `peft`, `safetensors` or `json`.
    pub format: &'static str,
    /// The model that a PEFT configuration names; nobody checks it.
    pub base_model: Option<String>,
}

/// Reads the one two-dimensional tensor of a safetensors file, checked against a PEFT configuration where one is given.
pub fn read(file: &[u8], config: Option<&[u8]>) -> Result<Imported, UsersError> {
    let config = config.map(Peft::read).transpose()?;
    let table = read_table(file)?;
    match config {
        Some(config) => {
            config.check(&table)?;
            Ok(Imported { table, format: Format::Peft.name(), base_model: config.base_model })
        }
        None => Ok(Imported { table, format: Format::Safetensors.name(), base_model: None }),
    }
}

/// A safetensors file with the rows as `prompt_embeddings`, as PEFT names them.
pub fn write_safetensors(table: &RowTable) -> Vec<u8> {
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::write(&metadata, &[(peft::TENSOR, &[table.rows(), table.d_model()], table.values())])
}

fn read_table(file: &[u8]) -> Result<RowTable, UsersError> {
    if let Some(found) = foreign(file) {
        return Err(UsersError::NotSafetensors { found });
    }
    let bounds =
        Bounds { header_bytes: limits::VECTOR_HEADER_BYTES_MAX, tensors: limits::SOFT_PROMPT_TENSORS_MAX };
    let bad = |rule: String| UsersError::SoftPromptFile { rule };
    let read = Safetensors::read(file, bounds).map_err(|fault| bad(fault.to_string()))?;
    let (name, tensor) = match (read.tensors.get_key_value(peft::TENSOR), read.tensors.iter().next()) {
        (Some(found), _) if read.tensors.len() == 1 => found,
        (None, Some(only)) if read.tensors.len() == 1 => only,
        _ => {
            let names: Vec<String> = read.tensors.keys().take(4).map(|name| shown(name)).collect();
            let (count, names) = (read.tensors.len(), names.join(", "));
            return Err(bad(format!("{count} tensors ({names}); expected one, `[rows, d_model]`")));
        }
    };
    let name = shown(name);
    let [rows, d_model] = tensor.shape[..] else {
        return Err(bad(format!("tensor {name} has shape {:?}; expected [rows, d_model]", tensor.shape)));
    };
    let values = tensor.floats().map_err(|problem| bad(format!("tensor {name} {problem}")))?;
    RowTable::new(values, rows as usize, d_model as usize)
}

/// What the first bytes say where they are no safetensors file: its length of the header has zeros in bytes 4 to 7.
fn foreign(file: &[u8]) -> Option<&'static str> {
    match file {
        [0x80, 0..=5, ..] => Some("a pickle"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some("a zip archive (torch files are such)"),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some("a NumPy file"),
        [b'G', b'G', b'U', b'F', ..] => Some("a GGUF file"),
        _ => match file.get(4..8) {
            Some([0, 0, 0, 0]) => None,
            Some(_) => Some("a file of another kind"),
            None => Some("a file of fewer than 8 bytes"),
        },
    }
}

/// A name from outside in a message.
fn shown(name: &str) -> String {
    let text: String = name.chars().take(limits::SHOWN_CHARS_MAX / 2).flat_map(char::escape_debug).collect();
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"peft_type":"PROMPT_TUNING","task_type":"CAUSAL_LM","num_virtual_tokens":2,
        "token_dim":3,"base_model_name_or_path":"org/m","extra":[1]}"#;

    fn table() -> RowTable {
        RowTable::new(vec![1.0, 2.0, 3.0, -1.0, 0.5, 0.25], 2, 3).expect("good rows")
    }

    #[test]
    fn what_is_written_is_read_again() {
        let file = write_safetensors(&table());
        let plain = read(&file, None).expect("plain");
        assert_eq!((plain.table, plain.format), (table(), "safetensors"));
        let peft = read(&file, Some(CONFIG.as_bytes())).expect("peft");
        assert_eq!((peft.format, peft.base_model.as_deref()), ("peft", Some("org/m")));
        let again = Peft::write(&table(), "m").expect("JSON");
        assert_eq!(read(&file, Some(&again)).expect("our own configuration").table, table());
    }

    #[test]
    fn foreign_and_broken_files_are_refused() {
        let file = write_safetensors(&table());
        for (bytes, part) in [
            (&b"\x80\x02}q\x00."[..], "a pickle"),
            (b"PK\x03\x04rest", "a zip archive"),
            (b"PK\x05\x06rest", "a zip archive"),
            (b"\x93NUMPY\x01\x00", "a NumPy file"),
            (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
            (b"hello world", "a file of another kind"),
            (b"", "fewer than 8 bytes"),
        ] {
            let error = read(bytes, None).expect_err(part);
            assert!(matches!(error, UsersError::NotSafetensors { .. }), "{error:?}");
            assert!(error.to_string().contains(part), "{error}");
        }
        for length in 8..file.len() {
            let error = read(&file[..length], None).expect_err("cut");
            assert!(matches!(error, UsersError::SoftPromptFile { .. }), "cut at {length}: {error:?}");
        }
        let none: &[(&str, &[usize], &[f32])] = &[];
        for (tensors, part) in [
            (none, "0 tensors"),
            (&[("a", &[1, 1], &[1.0]), ("b", &[1, 1], &[1.0])], "2 tensors (`a`, `b`)"),
            (&[("a", &[2], &[1.0, 2.0])], "expected [rows, d_model]"),
            (&[("a", &[1, 2, 1], &[1.0, 2.0])], "expected [rows, d_model]"),
            (&[("a", &[0, 4], &[])], "0 rows"),
            (&[("a", &[65, 1], &[1.0; 65])], "65 rows"),
            (&[("a", &[1, 2], &[1.0, f32::NAN])], "row 0"),
        ] {
            let file = safetensors::write(&BTreeMap::new(), tensors);
            let error = read(&file, None).expect_err(part).to_string();
            assert!(error.contains(part), "expected {part}: {error}");
        }
        let huge = (limits::VECTOR_HEADER_BYTES_MAX + 1).to_le_bytes();
        assert!(read(&huge, None).expect_err("header").to_string().contains("at most 65536"));
    }

    #[test]
    fn configurations_are_checked() {
        let file = write_safetensors(&table());
        for (old, new, part) in [
            ("PROMPT_TUNING", "LORA", "`peft_type` is `LORA`"),
            ("PROMPT_TUNING", "PREFIX_TUNING", "`peft_type` is `PREFIX_TUNING`"),
            ("CAUSAL_LM", "SEQ_2_SEQ_LM", "`task_type` is `SEQ_2_SEQ_LM`"),
            ("tokens\":2", "tokens\":3", "`num_virtual_tokens` is 3, the file has 2"),
            ("dim\":3", "dim\":4", "`token_dim` is 4, the file has 3"),
            ("\"extra\":[1]", "\"num_transformer_submodules\":2", "`num_transformer_submodules` is 2"),
            ("{\"peft", "[{\"peft", "adapter_config.json"),
            ("peft_type", "type", "missing field"),
        ] {
            let config = CONFIG.replacen(old, new, 1);
            let error = read(&file, Some(config.as_bytes())).expect_err(part).to_string();
            assert!(error.contains(part), "expected {part}: {error}");
        }
        // What PEFT stores of p-tuning is the result of its encoder.
        let config = CONFIG.replacen("PROMPT_TUNING", "P_TUNING", 1);
        assert_eq!(read(&file, Some(config.as_bytes())).expect("p-tuning").table, table());
    }
}

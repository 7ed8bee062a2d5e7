//! What each container calls the tensors of a decoder.

use crate::weights::Container;

/// The tensors of one block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    AttnNorm,
    Q,
    K,
    V,
    /// Queries, keys and values in one.
    Qkv,
    QNorm,
    KNorm,
    AttnOutput,
    PostAttnNorm,
    FfnNorm,
    Gate,
    Up,
    /// Gate and up in one.
    GateUp,
    Down,
    PostFfnNorm,
}

/// Names of one container.
pub(super) enum Names {
    Gguf,
    Folder {
        /// Before the names of the text model.
        prefix: &'static str,
        /// Whether a block has a norm after attention: then the norm before the MLP has another name.
        post_norms: bool,
    },
}

/// Where the text model may stand in a folder; the others are models that also see.
const PREFIXES: [&str; 3] = ["model.", "language_model.model.", "model.language_model."];
/// Tensors of the parts that see.
const VISION: [&str; 4] =
    ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."];

impl Names {
    pub fn of(container: &Container, post_norms: bool) -> Names {
        match container {
            Container::Gguf(_) => Names::Gguf,
            Container::Folder(folder) => {
                let holds = |prefix: &&&str| folder.tensor(&format!("{prefix}embed_tokens.weight")).is_some();
                Names::Folder { prefix: PREFIXES.iter().find(holds).unwrap_or(&PREFIXES[0]), post_norms }
            }
        }
    }

    pub fn embedding(&self) -> String {
        match self {
            Names::Gguf => "token_embd.weight".into(),
            Names::Folder { prefix, .. } => format!("{prefix}embed_tokens.weight"),
        }
    }

    pub fn output_norm(&self) -> String {
        match self {
            Names::Gguf => "output_norm.weight".into(),
            Names::Folder { prefix, .. } => format!("{prefix}norm.weight"),
        }
    }

    pub fn head(&self) -> &'static str {
        match self {
            Names::Gguf => "output.weight",
            Names::Folder { prefix: "language_model.model.", .. } => "language_model.lm_head.weight",
            Names::Folder { .. } => "lm_head.weight",
        }
    }

    pub fn weight(&self, l: usize, part: Part) -> String {
        format!("{}.weight", self.part(l, part))
    }

    pub fn bias(&self, l: usize, part: Part) -> String {
        format!("{}.bias", self.part(l, part))
    }

    /// Whether a tensor is of a part that this decoder leaves out on purpose: what is computed from the settings, and the
    /// eyes of a model that also sees.
    pub fn is_left_out(&self, name: &str) -> bool {
        match self {
            Names::Gguf => false,
            Names::Folder { prefix, .. } => {
                let sees = *prefix != PREFIXES[0] && VISION.iter().any(|part| name.starts_with(part));
                sees || name.ends_with(".self_attn.rotary_emb.inv_freq")
            }
        }
    }

    fn part(&self, l: usize, part: Part) -> String {
        match self {
            Names::Gguf => format!("blk.{l}.{}", gguf(part)),
            Names::Folder { prefix, post_norms } => {
                format!("{prefix}layers.{l}.{}", folder(part, *post_norms))
            }
        }
    }
}

fn gguf(part: Part) -> &'static str {
    match part {
        Part::AttnNorm => "attn_norm",
        Part::Q => "attn_q",
        Part::K => "attn_k",
        Part::V => "attn_v",
        Part::Qkv => "attn_qkv",
        Part::QNorm => "attn_q_norm",
        Part::KNorm => "attn_k_norm",
        Part::AttnOutput => "attn_output",
        Part::PostAttnNorm => "post_attention_norm",
        Part::FfnNorm => "ffn_norm",
        Part::Gate => "ffn_gate",
        Part::Up | Part::GateUp => "ffn_up",
        Part::Down => "ffn_down",
        Part::PostFfnNorm => "post_ffw_norm",
    }
}

fn folder(part: Part, post_norms: bool) -> &'static str {
    match part {
        Part::AttnNorm => "input_layernorm",
        Part::Q => "self_attn.q_proj",
        Part::K => "self_attn.k_proj",
        Part::V => "self_attn.v_proj",
        Part::Qkv => "self_attn.qkv_proj",
        Part::QNorm => "self_attn.q_norm",
        Part::KNorm => "self_attn.k_norm",
        Part::AttnOutput => "self_attn.o_proj",
        Part::PostAttnNorm => "post_attention_layernorm",
        Part::FfnNorm if post_norms => "pre_feedforward_layernorm",
        Part::FfnNorm => "post_attention_layernorm",
        Part::Gate => "mlp.gate_proj",
        Part::Up => "mlp.up_proj",
        Part::GateUp => "mlp.gate_up_proj",
        Part::Down => "mlp.down_proj",
        Part::PostFfnNorm => "post_feedforward_layernorm",
    }
}

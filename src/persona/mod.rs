//! Stored personas, and the resolution of what a request names to a [`Condition`].
//!
//! A persona is a system text, a steering plan, a soft prompt and sampling defaults under one name, and perhaps the
//! character card that it came from. [`frame`] puts its texts around a chat. Its versions never
//! change: a request works on the version it began with, whatever is stored or deleted meanwhile. [`persona_digest`]
//! says what a persona comes to on the loaded model; [`Condition::digest`] adds the user and the request.
//! Not here: what a request's fields look like (`server`), vectors (`steering`), people (`users`).

pub mod card;
mod condition;
mod digests;
mod error;
mod frame;
pub mod gate;
mod library;
mod sampling;
mod soft;
mod spec;

pub use condition::{Condition, Serving};
pub use digests::{PersonaParts, PersonaSoft, persona_digest};
pub use error::PersonaError;
pub use frame::{Framed, frame, put_system};
pub use library::{Expected, Personas};
pub use sampling::SamplingDefaults;
pub use soft::{Offer, OfferedRows, Source, one_of};
pub use spec::{Persona, PersonaSpec};

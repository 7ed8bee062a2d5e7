//! The gate on a request's path: what it is asked, and what of the request it is asked about.

use super::names::Named;
use super::resolve::digest_now;
use crate::digest::Digest;
use crate::persona::gate::{
    Admitted, Case, CasePersona, CaseSoft, Direction, Standing, State, directions, not_planned,
};
use crate::persona::{OfferedRows, Persona, Source};
use crate::server::Context;
use crate::server::error::ApiError;
use crate::server::metrics::GateDecision;
use crate::steering::AppliedVector;
use std::sync::Arc;

/// The soft prompt that a request ends up with.
pub enum InForce<'a> {
    None,
    /// The persona's own.
    Own,
    /// The persona has one, the request wants none.
    TurnedOff,
    OfRequest(&'a Source, &'a OfferedRows),
}

/// Refuses what a request may not steer with by itself, before any vector is looked up or made. Free unless the server
/// runs with `--gate enforce`.
pub async fn check_steering(context: &Context, named: &Named) -> Result<(), ApiError> {
    let traits = context.library.traits();
    let left = context.gate.ad_hoc(&named.steering, traits)?;
    for (direction, param) in left {
        if !is_planned(context, named.persona.as_ref(), &direction).await {
            return Err(not_planned(&direction, &param).into());
        }
    }
    Ok(())
}

/// Whether an admitted persona's plan adds this direction: the request's own is asked first, then all.
async fn is_planned(context: &Context, own: Option<&Arc<Persona>>, direction: &Direction) -> bool {
    let (all, _) = context.personas.page(None, usize::MAX);
    for persona in own.into_iter().chain(&all) {
        let plan = directions(&persona.spec.steering, context.library.traits());
        if plan.contains(direction) && standing_now(context, persona).await.state == State::Passed {
            return true;
        }
    }
    false
}

/// What the probe says of a stored persona as it is now; unprobed where its digest cannot be told.
pub async fn standing_now(context: &Context, persona: &Persona) -> Standing {
    match digest_now(context, &persona.spec).await {
        Ok(digest) => context.gate.standing(&digest),
        Err(error) => Standing { state: State::Unprobed, reasons: vec![error.message] },
    }
}

/// Decides on a request whose names are looked up. `own_vectors` are those that it adds itself.
pub fn admit(
    context: &Context,
    named: &Named,
    digest: Digest,
    own_vectors: &[AppliedVector],
    soft: InForce<'_>,
) -> Result<Admitted, ApiError> {
    let persona = named.persona.as_ref();
    let field = named.steering.interventions.first().map_or("steering", |first| first.param.as_str());
    let soft = match soft {
        InForce::None => CaseSoft::None,
        InForce::Own => CaseSoft::Persona,
        InForce::TurnedOff => CaseSoft::TurnedOff,
        InForce::OfRequest(Source::User(_), found) => {
            CaseSoft::User { label: &found.label, rows: &found.rows }
        }
        InForce::OfRequest(Source::Named(_), found) => CaseSoft::Named { label: &found.label },
    };
    let case = Case {
        persona: persona.map(|persona| CasePersona { persona, digest }),
        ad_hoc: (!own_vectors.is_empty())
            .then(|| (field, own_vectors.iter().map(|vector| vector.dose).sum())),
        soft,
        other_text: named.other_text,
    };
    let decided = context.gate.admit(&case);
    context.metrics.count_gate(match &decided {
        Ok(admitted) if admitted.warnings.is_empty() => GateDecision::Served,
        Ok(_) => GateDecision::Warned,
        Err(_) => GateDecision::Refused,
    });
    Ok(decided?)
}

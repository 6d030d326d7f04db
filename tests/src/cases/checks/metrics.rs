//! Rows of area `metrics`.

use lb_userspace::model::desired::Family;
use lb_userspace::model::metrics::no_local_endpoints;
use lb_userspace::model::{Allocations, build};

use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::State;
use crate::cases::objects;

pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    let mut config = state.config.model.clone();
    if let Some(name) = fields.text("node_name")? {
        config.node_name = name;
    }
    let own = fields.has("objects");
    let objects = if own { objects::objects(fields.list("objects")?)? } else { state.objects.clone() };
    let built = build(&config, &objects, &Allocations::default());
    let actual = no_local_endpoints(&built, state.config.family.unwrap_or(Family::V4));
    let mut expect = Fields::of(fields.required("expect")?)?;
    fields.finish()?;
    for (key, actual) in [("internal", actual.internal), ("external", actual.external)] {
        if let Some(wanted) = expect.number(key)? {
            equal(key, &wanted, &(actual as u64))?;
        }
    }
    expect.finish()
}

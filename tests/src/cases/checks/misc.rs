//! Small checks beside probes, named by their `expect_` keys.

use lb_userspace::model::desired::FrontendKind;

use crate::cases::config::address;
use crate::cases::fields::{Fields, Wrong, equal};
use crate::cases::file::State;

pub(super) fn check(state: &State<'_>, mut fields: Fields) -> Result<(), Wrong> {
    if let Some(expect) = fields.boolean("expect_lb_ip_handled")? {
        let wanted = address(&fields.text("lb_ip")?.ok_or("key lb_ip is missing")?)?;
        let mut frontends = state.built.desired.services.values().flat_map(|service| &service.frontends);
        let handled = frontends.any(|f| f.kind == FrontendKind::LoadBalancer && f.addr == wanted);
        equal("load balancer address handled", &expect, &handled)?;
    }
    if let Some(expect) = fields.number("expect_dataplane_writes")? {
        equal("operations on the maps", &expect, &(state.writes.clone()? as u64))?;
    }
    fields.finish()
}

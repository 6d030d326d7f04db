//! S: who gets a new flow.

use lb_userspace::model::desired::Algorithm;

use crate::rows::row::{Rows, Say};
use lb_common::reason::Reason;

pub(super) fn rows(rows: &mut Rows) {
    rows.all("S1 backends take turns", |s| {
        s.serve(&[s.svc(&[1, 2, 3])]);
        for (port, pod) in [(1000, 1), (1001, 2), (1002, 3), (1003, 1), (1004, 2)] {
            s.open(&s.conn(port, pod));
        }
    });
    rows.tcp("S2 random uses every backend", |s| {
        s.serve(&[s.svc(&[1, 2, 3]).algorithm(Algorithm::Random)]);
        s.spread(300, &[1, 2, 3], &[(50, 150); 3]);
    });
    let _ = (Say::Open, Reason::NewFlow);
}

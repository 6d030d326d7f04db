//! Every program gets past the kernel's verifier.

use aya::Ebpf;
use aya::programs::{Program, ProgramError};
use lb_userspace::dataplane::{self, SocketHook};
use lb_userspace::object;

use super::{Check, XDP_FRAGS};
use crate::rows::kernel;

/// One for each program of the object.
pub fn checks() -> Vec<Check> {
    let packets = [
        ("tc", "lb_tc_ingress"),
        ("tc", "lb_tc_egress"),
        ("tc", "lb_tc_answer"),
        ("xdp", "lb_xdp"),
        ("xdp-frags", "lb_xdp_frags"),
    ];
    packets
        .into_iter()
        .chain(SocketHook::ALL.map(|hook| ("sockets", hook.program())))
        .map(|(kind, name)| {
            let needs = (kind == "xdp-frags").then_some(XDP_FRAGS);
            Check::new(format!("load/{kind}/{name}"), needs, move || load(name))
        })
        .collect()
}

fn load(name: &str) -> String {
    let config = dataplane::config();
    let mut ebpf: Ebpf =
        kernel::loader(&config, kernel::small).load(object::for_this_kernel()).expect("maps are made");
    let (loaded, info) = match ebpf.program_mut(name).expect("a program of this name") {
        Program::Xdp(program) => (program.load(), program.info()),
        Program::SchedClassifier(program) => (program.load(), program.info()),
        Program::CgroupSockAddr(program) => (program.load(), program.info()),
        Program::CgroupSock(program) => (program.load(), program.info()),
        _ => panic!("a type that is not known here"),
    };
    if let Err(error) = loaded {
        panic!("{}", refusal(&error));
    }
    // Kernel 5.16 and later say.
    let walked = info.ok().and_then(|info| info.verified_instruction_count());
    walked.map_or_else(String::new, |count| format!("{count} instructions verified"))
}

/// The last lines of what the verifier has to say.
fn refusal(error: &ProgramError) -> String {
    const LINES: usize = 40;
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            format!("{io_error}\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
        }
        error => error.to_string(),
    }
}

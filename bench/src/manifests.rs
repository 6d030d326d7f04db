//! Services and endpoints as manifests, any number of them.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Port of every Service.
pub(crate) const SERVICE_PORT: u16 = 80;
/// Port of every pod.
pub(crate) const POD_PORT: u16 = 8080;
/// Range of the Services' addresses.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/12";
/// Range of the pods' addresses.
pub(crate) const POD_CIDR: &str = "10.64.0.0/11";
/// Services in one file.
const SERVICES_PER_FILE: u32 = 500;

/// The address of a Service.
pub(crate) fn service(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 10)) + number), SERVICE_PORT)
}

/// The address of a Service's pod, of those that are not there.
pub(crate) fn pod(service: u32, backends: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 68, 0, 1)) + service * backends + number)
}

/// A Service and its slice.
pub(crate) fn documents(number: u32, pods: &[Ipv4Addr]) -> String {
    let address = service(number);
    let mut text = format!(
        "kind: Service\nmetadata: {{name: s{number}}}\nspec: {{clusterIP: {}, ports: [{{port: {}}}]}}\n---\n\
         kind: EndpointSlice\nmetadata: {{name: s{number}, labels: {{kubernetes.io/service-name: s{number}}}}}\n\
         addressType: IPv4\nports: [{{port: {POD_PORT}}}]\nendpoints:\n",
        address.ip(),
        address.port()
    );
    for pod in pods {
        // Writing to a string never fails.
        let _infallible = writeln!(text, "- {{addresses: [{pod}]}}");
    }
    text.push_str("---\n");
    text
}

/// The file in `folder` that a Service is in.
pub(crate) fn file(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("services-{}.yaml", number / SERVICES_PER_FILE))
}

/// Writes all Services with `pods_of` each.
pub(crate) fn write(
    folder: &Path,
    services: u32,
    pods_of: impl Fn(u32) -> Vec<Ipv4Addr>,
) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for first in (0..services).step_by(SERVICES_PER_FILE as usize) {
        let last = services.min(first + SERVICES_PER_FILE);
        let text: String = (first..last).map(|number| documents(number, &pods_of(number))).collect();
        let path = file(folder, first);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

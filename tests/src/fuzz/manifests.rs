//! A file of manifests, up to the tables.

use lb_userspace::maps::MemoryStore;
use lb_userspace::model::allocate::{Allocator, Ranges};
use lb_userspace::model::{Interface, ModelConfig, build};
use lb_userspace::plan::{Limits, Numbers, Options, Planner, Tables, steady_clock};
use lb_userspace::source::{Objects, Packed, document};

fn config() -> Option<ModelConfig> {
    Some(ModelConfig {
        node_name: "here".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            addresses: vec!["192.0.2.1/24".parse().ok()?],
        }],
        service_cidrs: vec!["10.96.0.0/16".parse().ok()?],
        ..ModelConfig::default()
    })
}

/// The tables that follow from objects.
fn tables(objects: &Objects) -> Result<String, String> {
    let config = config().ok_or("a configuration")?;
    let ranges = Ranges { service_cidrs: config.service_cidrs.clone(), ..Ranges::default() };
    let (mut allocator, _) = Allocator::open(ranges, None);
    let (allocations, _) = allocator.allocate(objects);
    let built = build(&config, objects, allocations);
    let mut store = MemoryStore::new();
    let options = Options { maglev_slots: 31, ..Options::default() };
    let limits = Limits::of(&store).map_err(|error| error.to_string())?;
    let mut planner =
        Planner::adopt(&store, limits, options, steady_clock()).map_err(|error| error.to_string())?;
    planner.sync(&mut store, &built.desired).map_err(|error| error.to_string())?;
    if !planner.plan(&built.desired).map_err(|error| error.to_string())?.is_empty() {
        return Err("there is more to do right after all was done".to_owned());
    }
    Ok(Tables::read(&store).map_err(|error| error.to_string())?.dump(Numbers::Shown))
}

pub(super) fn run(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    // YAML ends lines in more ways than editors do.
    let ends = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    let lines = text.chars().filter(|letter| ends.contains(letter)).count() as u64 + 1;
    let mut objects = Vec::new();
    for document in document::split(text) {
        let contents = document::read(document);
        for finding in contents.findings {
            if !(1..=lines).contains(&finding.line) {
                return Err(format!("line {} of {lines}: {}", finding.line, finding.reason));
            }
        }
        for (object, _) in contents.objects {
            let packed = Packed::new(&object).and_then(|packed| packed.unpack());
            if packed.as_ref() != Some(&object) {
                return Err(format!("{object:?} became {packed:?}"));
            }
            objects.push(object);
        }
    }
    let forth: Objects = objects.iter().cloned().collect();
    tables(&forth)?;
    Ok(())
}

/// Manifests of all kinds that count.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b, labels: {c: d}, annotations: {lb.io/algorithm: maglev}}\nspec:\n  \
         type: LoadBalancer\n  clusterIP: 10.96.0.1\n  externalTrafficPolicy: Local\n  sessionAffinity: ClientIP\n  externalIPs: [192.0.2.9]\n  \
         loadBalancerSourceRanges: [198.51.100.0/24]\n  ports:\n  - {name: x, port: 80, targetPort: http, nodePort: 30080}\n  - {name: y, port: 53, \
         protocol: UDP}\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}\n",
        "kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}], selector: {app: a}}\n---\nkind: Pod\nmetadata: {name: p, labels: {app: a}}\n\
         spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}\nstatus: {podIP: 10.1.0.1, phase: Running}\n",
        "kind: Service\nmetadata: {name: s}\nspec: {clusterIPs: [10.96.0.2, 'fd00::2'], ipFamilyPolicy: RequireDualStack, ports: [{port: 1}]}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\n\
         ports: [{port: 8080}]\nendpoints:\n- addresses: [10.1.0.1]\n  conditions: {ready: true, serving: true}\n  hints: {forZones: [{name: z}]}\n",
        "kind: List\nitems:\n- kind: Endpoints\n  metadata: {name: e}\n  subsets: [{addresses: [{ip: 10.1.0.1}], ports: [{port: 80}]}]\n\
         - kind: Node\n  metadata: {name: here}\n  spec: {podCIDR: 10.1.0.0/16}\n",
        "{\"kind\": \"Service\", \"metadata\": {\"name\": \"j\"}, \"spec\": {\"ports\": [{\"port\": 65535}]}}",
        "a: &a [x, x]\nb: [*a, *a]\n--- !!str\nkind: Service\n...\n%YAML 1.2\n---\nkind: [\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

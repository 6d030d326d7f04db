//! The lab without the agent: the ground that demo and end-to-end tests stand on. Needs root.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lb_tests::lab::{TestLab, TestPod, examples, lb_program};
use lb_userspace::lab::netns::Namespace;
use lb_userspace::lab::topology::{Node, POD_INTERFACE};
use lb_userspace::lab::{Error, Lab, Options};
use tempfile::TempDir;

fn clusterip() -> PathBuf {
    examples().join("clusterip")
}

fn manifests(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("all.yaml"), text).unwrap();
    folder
}

fn is_running(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Nothing of the lab is on this machine.
fn assert_nothing_left(lab: &TestLab, pids: &[i64]) {
    assert_eq!(Namespace::names(&format!("lb-{}-", lab.name())).unwrap(), Vec::<String>::new());
    for directory in [format!("/run/lb/lab/{}", lab.name()), format!("/sys/fs/bpf/lb-lab-{}", lab.name())] {
        assert!(!Path::new(&directory).exists(), "{directory} is left");
    }
    let left: Vec<_> = pids.iter().filter(|&&pid| is_running(pid)).collect();
    assert!(left.is_empty(), "processes {left:?} are left");
}

/// Packets that came in through an interface of the node.
fn received(lab: &TestLab, interface: &str) -> u64 {
    let output = lab.exec("node", &["cat", "/proc/net/dev"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{interface}:"))).unwrap();
    line.split_ascii_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn every_pod_answers_every_pod_in_both_families() {
    let lab = TestLab::new();
    lab.up_bare(&clusterip());
    let backends = lab.pods("backend-");
    assert_eq!(backends.len(), 3);
    for from in ["client", "node", &backends[0].name] {
        for TestPod { name, v4, v6, .. } in &backends {
            assert_eq!(lab.curl(from, &format!("http://{v4}:8080/")), Ok(format!("{name} {v4} default\n")));
            assert_eq!(lab.curl(from, &format!("http://[{v6}]:8080/")), Ok(format!("{name} {v6} default\n")));
        }
    }
    assert_eq!(lab.curl("client", &format!("http://{}:8080/healthz", backends[0].v4)), Ok("ok\n".to_owned()));
}

#[test]
fn traffic_between_pods_crosses_the_veth_of_each_on_the_node() {
    let lab = TestLab::new();
    lab.up_bare(&clusterip());
    let [a, b, _] = lab.pods("backend-").try_into().unwrap();
    let count = |pod: &TestPod| received(&lab, &pod.interface);
    let before = (count(&a), count(&b));
    lab.curl(&a.name, &format!("http://{}:8080/", b.v4)).unwrap();
    let after = (count(&a), count(&b));
    // SYN, ACK, request, FIN one way, SYN-ACK, answer, FIN the other.
    assert!(after.0 >= before.0 + 4 && after.1 >= before.1 + 3, "{before:?} then {after:?}");
}

#[test]
fn udp_ports_answer_with_the_name_of_the_pod() {
    let lab = TestLab::new();
    let folder = manifests(
        "kind: Pod\nmetadata: {name: dns}\nspec: {containers: [{name: c, ports: [{containerPort: 53, protocol: UDP}]}]}",
    );
    lab.up_bare(folder.path());
    let [pod] = lab.pods("dns").try_into().unwrap();
    let client = Namespace::open(&lab.pods("client")[0].netns).unwrap();
    for (own, address) in [("0.0.0.0:0", format!("{}:53", pod.v4)), ("[::]:0", format!("[{}]:53", pod.v6))] {
        let answer = client.run(|| {
            let socket = UdpSocket::bind(own).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.send_to(b"ping", &address).unwrap();
            let mut buffer = [0; 100];
            let (length, _) = socket.recv_from(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        });
        assert_eq!(answer.unwrap(), "dns default\nping");
    }
    // Only UDP was asked for.
    assert!(lab.curl("client", &format!("http://{}:8080/", pod.v4)).is_err());
}

#[test]
fn exec_is_the_command() {
    let lab = TestLab::new();
    lab.up_bare(&clusterip());
    assert_eq!(lab.exec("client", &["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(lab.exec("client", &["no-such-program"]).status.code(), Some(127));
    assert_eq!(lab.exec("client", &["/etc"]).status.code(), Some(126));
    assert_eq!(lab.exec("cli", &["echo", "-n", "--name", "a b"]).stdout, b"--name a b");
    let [client] = lab.pods("client").try_into().unwrap();
    let hosts = String::from_utf8(lab.exec("client", &["cat", "/etc/hosts"]).stdout).unwrap();
    assert!(hosts.contains(&format!("{} client\n", client.v4)), "{hosts}");
    assert_ne!(fs::read_to_string("/etc/hosts").unwrap_or_default(), hosts, "the machine's own file changed");

    let complaint = lab.fails("exec", &["backend", "--", "true"]);
    assert!(lab.pods("backend-").iter().all(|pod| complaint.contains(&pod.name)), "{complaint}");
    let complaint = lab.fails("exec", &["nobody", "--", "true"]);
    assert!(complaint.contains("there is no pod nobody") && complaint.contains("client"), "{complaint}");
}

#[test]
fn a_killed_pod_comes_back_with_another_address() {
    let lab = TestLab::new();
    lab.up_bare(&clusterip());
    let before = lab.pods("backend-");
    let old = &before[1];
    lab.ok("kill", &[&old.name]);
    let after = lab.pods("backend-");
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]), "the others stay as they are");
    let new = &after[1];
    assert_ne!(new.name, old.name);
    assert!(
        before.iter().all(|pod| pod.v4 != new.v4 && pod.v6 != new.v6),
        "{new:?} has an address of {before:?}"
    );
    assert_eq!(new.labels, old.labels);

    let answer = format!("{} {} default\n", new.name, new.v4);
    assert_eq!(lab.curl("client", &format!("http://{}:8080/", new.v4)), Ok(answer));
    assert!(lab.curl("client", &format!("http://{}:8080/", old.v4)).is_err());
    assert!(!is_running(old.pids[0]));
    assert!(Namespace::open(&old.netns).is_err());
    let objects: BTreeSet<String> = fs::read_dir(format!("/run/lb/lab/{}/manifests", lab.name()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(objects.contains(&format!("pod-default_{}.json", new.name)), "{objects:?}");
    assert!(!objects.contains(&format!("pod-default_{}.json", old.name)), "{objects:?}");
}

#[test]
fn pods_of_a_statefulset_keep_their_names() {
    let lab = TestLab::new();
    let folder = manifests("kind: StatefulSet\nmetadata: {name: db}\nspec: {replicas: 2, serviceName: db}");
    lab.up_bare(folder.path());
    let before = lab.pods("db-");
    assert_eq!(before.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["db-0", "db-1"]);
    lab.ok("kill", &["db-1"]);
    let after = lab.pods("db-");
    assert_eq!(after[1].name, "db-1");
    assert_ne!(after[1].v4, before[1].v4);
    assert_ne!(after[1].pids, before[1].pids);
}

#[test]
fn a_command_runs_in_place_of_the_server() {
    let lab = TestLab::new();
    let folder = manifests(
        "kind: Pod\nmetadata: {name: worker}\nspec:\n  containers:\n  - name: main\n    command: [sh, -c]\n    \
         args: ['echo \"$GREETING from $HOSTNAME\"; exec sleep 1000']\n    env: [{name: GREETING, value: hello}]\n",
    );
    lab.up_bare(folder.path());
    let [pod] = lab.pods("worker").try_into().unwrap();
    let [pid] = pod.pids.clone().try_into().unwrap();
    assert!(is_running(pid));
    let log = PathBuf::from(format!("/run/lb/lab/{}/pods/{}/main.log", lab.name(), pod.netns));
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(&log).unwrap() != "hello from worker\n" {
        assert!(std::time::Instant::now() < end, "log: {:?}", fs::read_to_string(&log));
        std::thread::sleep(Duration::from_millis(10));
    }
    lab.ok("down", &[]);
    assert_nothing_left(&lab, &[pid]);
}

#[test]
fn down_leaves_nothing() {
    let lab = TestLab::new();
    lab.up_bare(&clusterip());
    let pids: Vec<i64> = lab.pods("").into_iter().flat_map(|pod| pod.pids).collect();
    assert_eq!(pids.iter().filter(|&&pid| is_running(pid)).count(), 3);
    let said = lab.ok("down", &[]);
    assert!(said.contains(&format!("removed network namespace lb-{}-node", lab.name())), "{said}");
    assert_nothing_left(&lab, &pids);
    assert!(lab.ok("down", &[]).contains("nothing to remove"));
    assert!(lab.fails("status", &[]).contains("there is no lab"));
}

#[test]
fn down_cleans_up_after_a_crash() {
    let lab = TestLab::new();
    lab.up_bare(&clusterip());
    let pods = lab.pods("backend-");
    fs::remove_file(format!("/run/lb/lab/{}/state.json", lab.name())).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pods[0].pids[0]).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    // A name without a namespace, as left when the machine's mounts went but /run stayed.
    fs::write(format!("/run/netns/lb-{}-leftover", lab.name()), "").unwrap();
    assert!(lab.fails("status", &[]).contains("lb lab down --name"));
    let complaint = lab.fails("up", &["--no-agent", "-f", &clusterip().display().to_string()]);
    assert!(complaint.contains("already exists"), "{complaint}");
    lab.ok("down", &[]);
    assert_nothing_left(&lab, &pods.iter().flat_map(|pod| pod.pids.clone()).collect::<Vec<_>>());
}

#[test]
fn a_second_lab_of_the_same_name_is_refused() {
    let lab = TestLab::new();
    lab.up_bare(&clusterip());
    let before = lab.status();
    let complaint = lab.fails("up", &["--no-agent", "-f", &clusterip().display().to_string()]);
    assert!(complaint.contains(&format!("the lab {} already exists", lab.name())), "{complaint}");
    assert!(complaint.contains("lb lab down"), "{complaint}");
    assert_eq!(lab.status(), before);
}

#[test]
fn what_cannot_be_made_is_removed_again() {
    let lab = TestLab::new();
    let folder = manifests("kind: Deployment\nmetadata: {name: many}\nspec: {replicas: 6}");
    let complaint = lab.fails(
        "up",
        &["--no-agent", "-f", &folder.path().display().to_string(), "--pod-cidr", "10.244.0.0/29"],
    );
    assert!(complaint.contains("10.244.0.0/29") && complaint.contains("room for 5 pods"), "{complaint}");
    assert_nothing_left(&lab, &[]);
}

#[test]
fn refusals_say_what_is_wrong() {
    let lab = TestLab::new();
    let folder = clusterip().display().to_string();
    let missing =
        manifests("kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, command: [no-such]}]}");
    let missing = missing.path().display().to_string();
    let empty = TempDir::new().unwrap();
    let empty = empty.path().display().to_string();
    for (arguments, part) in [
        (vec!["-f", &folder, "--pod-cidr", "10.96.3.0/24"], "overlaps the service range 10.96.0.0/16"),
        (vec!["-f", "/no/such/folder"], "/no/such/folder"),
        (vec!["-f", &empty], "no Kubernetes object"),
        (vec!["-f", &folder, "--node-address", "10.244.0.9"], "node address 10.244.0.9"),
    ] {
        let complaint = lab.fails("up", &[&["--no-agent"], arguments.as_slice()].concat());
        assert!(complaint.contains(part), "{arguments:?}: {complaint}");
        assert_nothing_left(&lab, &[]);
    }
    let output = lab.lb("up", &["--no-agent", "-f", &missing]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Pod a: container c: its command no-such is not on this machine"), "{said}");
    assert_eq!(lab.pods("a")[0].pids.len(), 1);
}

#[test]
fn one_family_alone() {
    let lab = TestLab::new();
    let folder = clusterip().display().to_string();
    lab.ok(
        "up",
        &["--no-agent", "-f", &folder, "--pod-cidr", "fd00:7::/64", "--service-cidr", "fd00:8::/112"],
    );
    let address = lab.pods("backend-")[0].v4.clone();
    assert!(address.starts_with("fd00:7::"), "the only address is {address}");
    assert!(lab.curl("client", &format!("http://[{address}]:8080/")).is_ok());
    assert_eq!(lab.status()["node"]["addresses"].as_array().unwrap().len(), 1);
}

#[test]
fn networks_can_be_built_piece_by_piece() {
    // Named as parts of a lab, so that it cleans up if the test fails.
    let lab = TestLab::new();
    let name = |part: &str| format!("lb-{}-{part}", lab.name());
    let node = Node::create(&name("node"), &["172.31.0.1".parse().unwrap()]).unwrap();
    assert!(matches!(Node::create(&name("node"), &[]), Err(Error::Exists { .. })));
    let server = node.add_pod(&name("a"), "veth-a", &["10.9.0.1".parse().unwrap()]).unwrap();
    let client = node.add_pod(&name("b"), "veth-b", &["10.9.0.2".parse().unwrap()]).unwrap();

    let listener = server.run(|| std::net::TcpListener::bind("10.9.0.1:80").unwrap()).unwrap();
    let stream = client.run(|| std::net::TcpStream::connect("10.9.0.1:80").unwrap()).unwrap();
    assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());

    // A name that is taken leaves no half-made pod behind.
    assert!(node.add_pod(&name("c"), "veth-a", &[]).is_err());
    assert!(matches!(Namespace::open(&name("c")), Err(Error::Missing { .. })));
    assert!(node.netlink().find_link("veth-a").unwrap().is_some(), "the taken interface went");

    node.remove_pod(&name("a"), "veth-a").unwrap();
    assert_eq!(node.netlink().find_link("veth-a").unwrap(), None);
    node.remove_pod(&name("a"), "veth-a").unwrap();
}

/// docs/limits.md, "Native XDP on veth pairs".
#[test]
fn wires_for_native_xdp_keep_packets_in_order() {
    let lab = TestLab::new();
    let name = |part: &str| format!("lb-{}-{part}", lab.name());
    let offload = |place: &Namespace, interface: &str, feature: &str| {
        let output = place.command("ethtool").unwrap().args(["-k", interface]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.trim().starts_with(feature)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {feature} in {said}"))
    };
    let node = Node::create(&name("node"), &[]).unwrap();
    for (number, native_xdp, tso, gro) in [(1, false, "on", "off"), (2, true, "off", "on")] {
        let node = Node::open(node.namespace().name()).unwrap().for_native_xdp(native_xdp);
        let interface = format!("veth{number}");
        let pod = node.add_pod(&name(&interface), &interface, &[]).unwrap();
        let seen = [
            offload(node.namespace(), &interface, "tx-tcp-segmentation:"),
            offload(&pod, POD_INTERFACE, "generic-receive-offload:"),
        ];
        assert!(seen[0].ends_with(tso) && seen[1].ends_with(gro), "native XDP {native_xdp}: {seen:?}");
    }
}

/// A lab whose agent is this shell script; the rest of `lb` is the real one. In the script, `$ready` is the file to make.
fn up_with_agent(lab: &TestLab, folder: &TempDir, script: &str) -> Result<Lab, Error> {
    let program = folder.path().join("lb");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = run ] || exec {} \"$@\"\necho \"$@\"\n\
         while [ $# -gt 1 ]; do [ \"$1\" = --ready-file ] && ready=$2; shift; done\n{script}\n",
        lb_program().display()
    );
    // Written by another process: a test that forks at the same time would inherit the descriptor, and a file that is
    // open for writing cannot be run.
    let write = "printf %s \"$1\" > \"$0\"; chmod 700 \"$0\"";
    assert!(Command::new("sh").args(["-c", write]).arg(&program).arg(text).status().unwrap().success());
    let parse = |text: &str| text.parse().unwrap();
    let options = Options {
        name: lab.name().to_owned(),
        program,
        manifests: vec![clusterip()],
        pod_cidrs: vec![parse("10.244.0.0/24")],
        service_cidrs: vec![parse("10.96.0.0/16")],
        node_addresses: vec!["172.31.255.1".parse().unwrap()],
        outside_addresses: vec!["198.51.100.7".parse().unwrap()],
        load_balancer_pool: vec![parse("203.0.113.0/24")],
        dns_addresses: vec![],
        hook: Some("xdp".to_owned()),
        forwarding: None,
        agent: true,
        ignore_commands: false,
    };
    Lab::up(&options).map(|(lab, _)| lab)
}

#[test]
fn the_agent_runs_on_the_node_until_down() {
    let (lab, folder) = (TestLab::new(), TempDir::new().unwrap());
    up_with_agent(&lab, &folder, "echo $$ > $ready; exec sleep 1000").unwrap();
    let status = lab.status();
    let pid = status["agent"]["pid"].as_i64().unwrap();
    assert_eq!(status["agent"]["state"], "running");
    let node = Namespace::open(&format!("lb-{}-node", lab.name())).unwrap();
    assert_eq!(node.processes().unwrap(), [i32::try_from(pid).unwrap()]);
    let log = fs::read_to_string(status["agent"]["log"].as_str().unwrap()).unwrap();
    let directory = format!("/run/lb/lab/{}", lab.name());
    for part in [
        format!(
            "run --manifests {} --manifests {directory}/manifests",
            clusterip().canonicalize().unwrap().display()
        ),
        format!(
            "--pods-from {directory}/manifests --node-name lab-node --pod-cidr 10.244.0.0/24 --service-cidr 10.96.0.0/16 \
             --load-balancer-pool 203.0.113.0/24 --state-file {directory}/"
        ),
        "--iface veth* --iface uplink --external-iface uplink".to_owned(),
        "--dns-listen 172.31.255.1 --cluster-domain cluster.local".to_owned(),
        format!("--pin-dir /sys/fs/bpf/lb-lab-{} ", lab.name()),
        "--hook xdp".to_owned(),
    ] {
        assert!(log.contains(&part), "{part} is not in {log}");
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while is_running(pid) && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(lab.status()["agent"]["state"], "dead");
    drop(node);
    lab.ok("down", &[]);
    assert_nothing_left(&lab, &[pid]);
}

#[test]
fn an_agent_that_does_not_come_up_takes_the_lab_with_it() {
    let (lab, folder) = (TestLab::new(), TempDir::new().unwrap());
    let complaint = up_with_agent(&lab, &folder, "echo no luck today >&2; exit 3").unwrap_err().to_string();
    assert!(complaint.contains("exit status: 3") && complaint.contains("no luck today"), "{complaint}");
    assert_nothing_left(&lab, &[]);
}

//! UDP servers and clients on the checks' node.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use lb_userspace::lab::netns::Namespace;

use crate::node::{TestNode, address};

/// The Service of [`serve`], in both families.
pub const DATAGRAMS: [&str; 2] = ["10.96.0.11:53", "[fd00:96::11]:53"];
/// Port that the servers listen on.
pub const PORT: u16 = 5353;

/// Servers that answer a datagram with their number, and a Service in front of the first `count`.
pub fn serve(node: &TestNode, count: usize) {
    listen(node, count);
    publish(node, &(0..count).collect::<Vec<_>>());
}

/// The servers alone.
pub fn listen(node: &TestNode, count: usize) {
    for number in 0..count {
        let socket =
            node.server(number).run(|| UdpSocket::bind(("::", PORT)).expect("a port")).expect("enters");
        thread::spawn(move || {
            let mut room = [0; 64];
            while let Ok((_, client)) = socket.recv_from(&mut room) {
                let _gone = socket.send_to(number.to_string().as_bytes(), client);
            }
        });
    }
}

/// Puts the Service in front of these servers.
pub fn publish(node: &TestNode, servers: &[usize]) {
    let mut text = "kind: Service\nmetadata: {name: names}\nspec: {clusterIP: 10.96.0.11, clusterIPs: [10.96.0.11, \
                    'fd00:96::11'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, ports: [{name: dns, port: \
                    53, protocol: UDP}]}\n"
        .to_owned();
    for family in [4, 6] {
        let endpoints: Vec<_> =
            servers.iter().map(|server| format!("{{addresses: ['{}']}}", address(*server, family))).collect();
        text += &format!(
            "---\nkind: EndpointSlice\nmetadata: {{name: names-{family}, labels: {{kubernetes.io/service-name: names}}}}\n\
             addressType: IPv{family}\nports: [{{name: dns, port: {PORT}, protocol: UDP}}]\nendpoints: [{}]\n",
            endpoints.join(", ")
        );
    }
    node.write("names.yaml", &text);
}

/// Asks from so many sockets of a client's; how many questions each server answered.
///
/// All are open at once: a closed one's port might come back, and with it the flow that it had.
pub fn answers(client: &Namespace, to: &str, times: usize) -> BTreeMap<usize, usize> {
    let sockets: Vec<_> = (0..times).map(|_| client.run(|| socket(to)).expect("enters")).collect();
    let mut answers = BTreeMap::new();
    for socket in &sockets {
        *answers.entry(ask(socket)).or_default() += 1;
    }
    answers
}

/// A connected socket, made where the thread is.
pub fn socket(to: &str) -> UdpSocket {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).expect("a port");
    socket.connect(to).expect("connects");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    socket
}

/// Which server answers.
pub fn ask(socket: &UdpSocket) -> usize {
    socket.send(b"who?").expect("sends");
    let mut room = [0; 64];
    let length = socket.recv(&mut room).expect("an answer");
    String::from_utf8_lossy(&room[..length]).parse().expect("a number")
}

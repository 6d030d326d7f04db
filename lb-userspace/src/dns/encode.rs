//! Messages to bytes, no longer than the client takes.

use hickory_proto::op::Message;
use hickory_proto::serialize::binary::BinEncodable;

/// Bytes of a UDP answer to clients that do not say more (RFC 1035, section 4.2.1).
pub(super) const UDP_WITHOUT_EDNS: usize = 512;
/// Bytes that this server sends and takes by UDP: what fits into the smallest MTU of IPv6, so that no answer comes in
/// fragments (RFC 9715).
pub(super) const UDP_PAYLOAD: u16 = 1232;

/// The message in at most `limit` bytes. What does not fit is left out, whole records from the end: additional ones first,
/// silently (RFC 2181, section 9), then with the TC bit set. Resolvers that cannot do TCP get what fits. None when not even
/// the question does.
pub(super) fn encode(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = message.to_bytes().ok();
        if let Some(bytes) = bytes.as_ref().filter(|bytes| bytes.len() <= limit) {
            return Some(bytes.clone());
        }
        if !message.additionals.is_empty() {
            message.additionals.clear();
            continue;
        }
        message.metadata.truncation = true;
        if !message.authorities.is_empty() {
            message.authorities.clear();
            continue;
        }
        if message.answers.is_empty() {
            return None;
        }
        // In steps of what is certainly too much, so that long answers take few rounds.
        let keep = match bytes {
            Some(bytes) => message.answers.len() * limit / bytes.len(),
            None => message.answers.len() / 2,
        };
        message.answers.truncate(keep.min(message.answers.len() - 1));
    }
}

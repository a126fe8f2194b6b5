//! What a file is that is no safetensors file.

/// Names a format that is often taken for a safetensors file, and what to do about it. Asked only
/// when the bytes could not be read: a safetensors file begins with a length, which may look like
/// anything.
pub(super) fn other_format(bytes: &[u8]) -> Option<&'static str> {
    Some(match bytes {
        [] => "the file is empty",
        [b'P', b'K', 3, 4, ..] => {
            "this is a zip archive, as torch.save writes it (.pt, .pth), not a safetensors file: \
             load it in Python and write its state dict with safetensors.torch.save_file"
        }
        [0x80, 2..=5, ..] => {
            "this is a pickle, as torch.save wrote it before PyTorch 1.6 (.pt, .pth), not a \
             safetensors file: load it in Python and write its state dict with \
             safetensors.torch.save_file"
        }
        [0x1f, 0x8b, ..] => "this is a gzip archive, not a safetensors file: unpack it first",
        _ if bytes.starts_with(b"version https://git-lfs") => {
            "this is a pointer of Git LFS, not the file itself: fetch it with git lfs pull"
        }
        _ if bytes.trim_ascii_start().starts_with(b"<") => {
            "this is a web page (HTML or XML), not a safetensors file: \
             the download gave an error page or a login"
        }
        _ if bytes.iter().take(64).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
            "this is text, not a safetensors file"
        }
        _ => return None,
    })
}

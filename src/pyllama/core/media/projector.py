"""A projector: the encoder that turns images and sounds into embeddings of a text model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from pyllama.core import backend, bigstack, log
from pyllama.core.deadline import Deadline
from pyllama.core.enums import VocabType
from pyllama.core.files.gguf import read_header
from pyllama.core.library import ffi, lib
from pyllama.core.loading import trial
from pyllama.core.loading.watch import Watch, load
from pyllama.core.media.bitmap import Bitmap
from pyllama.core.media.chunk_decoder import decode_chunks
from pyllama.core.media.chunks import Chunk, Chunks
from pyllama.core.media.encoder import Encoder, failure
from pyllama.core.media.projector_options import PROJECTOR_CHECKS, ProjectorOptions, media_marker
from pyllama.core.media.projector_rules import check_image_tokens, check_projector
from pyllama.core.model import Model
from pyllama.core.params import fill, flag
from pyllama.core.threads import n_usable_cores
from pyllama.core.tokenizer import SMALL_TEXT
from pyllama.errors import TokenizeError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Unpack

    from pyllama.core.context import Context

Part = str | Bitmap


class Capabilities(NamedTuple):
    """What a projector file is for."""

    vision: bool
    """Whether it takes images."""
    audio: bool
    """Whether it takes sounds."""


class Projector(Encoder):
    """Load a projector (an mmproj file) for a text model.

    Parameters
    ----------
    model
        The text model that it was made for; the projector is closed with it.
    path
        The GGUF file.
    progress
        Called with the fraction loaded, 0.0 to 1.0. If it returns False the load is cancelled;
        what it raises is raised here.
    timeout
        Seconds the load may take; None is any time. It is looked at after each tensor.
    verify
        "check": the file is held against what libllama assumes of it. "trial": the projector is
        also loaded once, and computes, in a process that may die of it; the verdict is kept until
        the file, or one of the model's, changes.
    **options
        See `ProjectorOptions`.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As the file system says.
    LoadError
        If the file is broken, is no projector, was made for another model, or libllama refuses
        it; ``.log`` holds libllama's words.
    TypeError, ValueError
        If an option is unknown or out of range, or the model of a trial was not given by its path.
    TimeoutError
        If the time was not enough.
    UnsupportedError
        If the model has no weights.

    Notes
    -----
    One thread at a time. What it makes can be decoded in any context of the model.

    Calls: mtmd_context_params_default, mtmd_init_from_file, mtmd_free
    """

    def __init__(
        self,
        model: Model,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[float], object] | None = None,
        timeout: float | None = None,
        verify: Literal["check", "trial"] = "check",
        **options: Unpack[ProjectorOptions],
    ) -> None:
        if not isinstance(model, Model):
            message = f"a Projector is loaded for a Model, not for {model!r:.80}"
            raise TypeError(message)
        path = os.fspath(path)
        watch = Watch(progress, Deadline.after(timeout))
        model._require_weights()
        marker = media_marker(options.pop("media_marker", None))
        params = lib.mtmd_context_params_default()
        params.n_threads = n_usable_cores()
        params.print_timings = False
        fill(params, options, PROJECTOR_CHECKS)
        text = ffi.new("char[]", marker.encode())  # libllama copies it
        params.media_marker = text
        header = read_header(path)
        check_projector(header)
        check_image_tokens(header, params.image_min_tokens, params.image_max_tokens)
        trial.require(verify, model._files, projector=os.fsdecode(path))
        backend.begin_computing()

        with model._call as model_pointer:  # until it knows its child: close() comes after

            def make() -> Any:
                return lib.mtmd_init_from_file(os.fsencode(path), model_pointer, params)

            pointer = load(path, params, watch, make, lib.mtmd_free)
            super().__init__(pointer, lib.mtmd_free, model)
        self.model = model
        self.path = path
        self.marker = marker
        """What stands for a bitmap in a text."""
        self._n_embd = model.n_embd_inp

    @staticmethod
    def capabilities(path: str | os.PathLike[str]) -> Capabilities:
        """Return what a projector file is for, without loading it.

        Parameters
        ----------
        path
            The GGUF file.

        Returns
        -------
        Capabilities

        Raises
        ------
        FileNotFoundError, IsADirectoryError, PermissionError, LoadError
            As for `Projector`.

        Calls: mtmd_get_cap_from_file
        """
        path = os.fspath(path)
        check_projector(read_header(path))
        found = lib.mtmd_get_cap_from_file(os.fsencode(path))
        log.drain()
        return Capabilities(bool(found.inp_vision), bool(found.inp_audio))

    @property
    def supports_vision(self) -> bool:
        """Whether it takes images."""
        with self._call as pointer:
            return bool(lib.mtmd_support_vision(pointer))

    @property
    def supports_audio(self) -> bool:
        """Whether it takes sounds."""
        with self._call as pointer:
            return bool(lib.mtmd_support_audio(pointer))

    @property
    def sample_rate(self) -> int | None:
        """Samples a second of the sounds it takes; None if it takes none."""
        with self._call as pointer:
            rate = int(lib.mtmd_get_audio_sample_rate(pointer))
        return rate if rate > 0 else None

    @property
    def uses_mrope(self) -> bool:
        """Whether an embedding has four positions (M-RoPE)."""
        with self._call as pointer:
            return bool(lib.mtmd_decode_use_mrope(pointer))

    @property
    def n_embd(self) -> int:
        """Width of an embedding, that of the text model's input."""
        return self._n_embd

    def tokenize(
        self,
        prompt: str | Sequence[Part],
        bitmaps: Sequence[Bitmap] = (),
        *,
        add_special: bool = True,
        parse_special: bool = False,
    ) -> Chunks:
        """Cut a prompt into chunks, and prepare its images and sounds.

        Parameters
        ----------
        prompt
            A text in which `marker` stands where the bitmaps go; or texts and bitmaps in a list,
            where no text is searched for markers.
        bitmaps
            As many as there are markers in the text; none with a list.
        add_special
            Whether the tokens that begin and end a text are added, as the model asks for.
        parse_special
            Whether "<|im_end|>" and its like in the texts become control tokens. Never for text
            from a user: it could end its own turn. The tokens that the model wants around an image
            are added in any case.

        Returns
        -------
        Chunks

        Raises
        ------
        TypeError
            If a part is neither text nor bitmap.
        ValueError
            If markers and bitmaps differ in number, a sound has another rate, or nothing is left
            to decode.
        UnicodeEncodeError
            If a text holds half of a surrogate pair.
        UnsupportedError
            If the projector takes no images, or no sounds, or the model has no vocabulary.
        TokenizeError
            If the vocabulary has no tokens for a text, or libllama cannot prepare a bitmap.

        Calls: mtmd_tokenize_from_parts, mtmd_input_chunks_init
        """
        parts = self._parts(prompt, bitmaps)
        flag("parse_special", parse_special)
        vocab = self.model.vocab
        vocab._require_tokens()
        texts = [part.encode() for part in parts if isinstance(part, str)]
        for text in [b"", *texts]:
            vocab._require_fit(text, add_special=flag("add_special", add_special))
        longest = max(texts, key=len, default=b"")
        if vocab.type != VocabType.BPE or len(longest) <= SMALL_TEXT:
            chunks = self._tokenize(parts, add_special, parse_special)
        else:
            stack = max(vocab._stack_for(text) for text in texts)
            chunks = bigstack.call(lambda: self._tokenize(parts, add_special, parse_special), stack)
        for chunk in chunks:
            tokens = chunk.tokens
            # -1 is a token that the model should have and has not.
            if tokens is not None and tokens.view(np.uint32).max(initial=0) >= vocab.n_tokens:
                message = "the vocabulary lacks tokens: for the text, or those around a bitmap"
                raise TokenizeError(message)
        return chunks

    def _parts(self, prompt: Any, bitmaps: Any) -> list[Part]:
        """Return texts and bitmaps in order, each of them one that C can take."""
        if isinstance(bitmaps, (Bitmap, str, bytes)) or not isinstance(bitmaps, Sequence):
            message = f"bitmaps must be a list of Bitmap, not {bitmaps!r:.80}"
            raise TypeError(message)
        if isinstance(prompt, str):
            parts = self._split(prompt, bitmaps)
        elif isinstance(prompt, Sequence) and not isinstance(prompt, (bytes, bytearray)):
            parts = list(prompt)
            if bitmaps:
                message = "with a list of texts and bitmaps, no others can be given"
                raise ValueError(message)
        else:
            message = f"prompt must be a str, or a list of str and Bitmap, not {prompt!r:.80}"
            raise TypeError(message)
        for part in parts:
            if isinstance(part, Bitmap):
                self._require_taken(part)
            elif not isinstance(part, str):
                message = f"a part of a prompt is a str or a Bitmap, not {part!r:.80}"
                raise TypeError(message)
        parts = [part for part in parts if part != ""]
        if not parts:
            message = "the prompt is empty"
            raise ValueError(message)
        return parts

    def _split(self, prompt: str, bitmaps: Sequence[Any]) -> list[Part]:
        texts = prompt.split(self.marker)
        if len(texts) != len(bitmaps) + 1:
            message = (
                f"the text holds {len(texts) - 1} times {self.marker!r}, but there are "
                f"{len(bitmaps)} bitmaps; for text that is not your own, give a list of parts"
            )
            raise ValueError(message)
        parts: list[Part] = [texts[0]]
        for bitmap, text in zip(bitmaps, texts[1:], strict=True):
            parts += [bitmap, text]
        return parts

    def _require_taken(self, bitmap: Bitmap) -> None:
        if not bitmap.is_sound:
            if not self.supports_vision:
                message = "this projector takes no images"
                raise UnsupportedError(message)
        elif self.sample_rate is None:
            message = "this projector takes no sounds"
            raise UnsupportedError(message)
        elif bitmap.sample_rate != self.sample_rate:
            message = (
                f"the sound has {bitmap.sample_rate} samples a second, but this projector takes "
                f"{self.sample_rate}: resample it"
            )
            raise ValueError(message)

    def _tokenize(self, parts: list[Part], add_special: bool, parse_special: bool) -> Chunks:  # noqa: FBT001
        with ExitStack() as stack, self._call as pointer:
            structs, keep = [], []  # a struct does not keep what it points at
            for part in parts:
                struct = ffi.new("struct mtmd_input_part *")
                if isinstance(part, Bitmap):
                    struct.bitmap = stack.enter_context(part._call)
                else:
                    data = part.encode()
                    memory = ffi.from_buffer("char[]", data)
                    text = ffi.new("struct mtmd_input_text *")
                    text.text, text.text_len, text.parse_special = memory, len(data), parse_special
                    struct.text = text
                    keep += [memory, text]
                structs.append(struct)
            array = ffi.new("struct mtmd_input_part *[]", structs)
            since = log.mark()
            output = ffi.gc(lib.mtmd_input_chunks_init(), lib.mtmd_input_chunks_free)
            code = lib.mtmd_tokenize_from_parts(pointer, output, array, len(structs), add_special)
            if code:
                raise failure(TokenizeError, "libllama cannot prepare this prompt", since)
            blank = any(isinstance(part, Bitmap) and part.is_placeholder for part in parts)
            ffi.gc(output, None)  # from here on the handle frees it
            return Chunks(output, self, is_placeholder=blank)

    def decode(
        self,
        context: Context,
        chunks: Iterable[Chunk],
        *,
        pos: int = 0,
        seq: int = 0,
        output: str = "last",
    ) -> int:
        """Decode chunks into a context, one after another, encoding images and sounds on the way.

        Parameters
        ----------
        context
            Of this projector's model.
        chunks
            A whole prompt, or part of one, from this projector's `tokenize`.
        pos
            Position of the first token: what the last call returned, or the end of the sequence.
        seq
            The sequence.
        output
            "last" for logits of the last token, or "none".

        Returns
        -------
        int
            The position behind the last token, for what comes next.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong type, is of another model, or is a placeholder's; or if an
            embedding is not finite.
        InvalidBatchError
            If the position does not follow what the memory holds, or an image that is decoded
            whole is larger than ``n_ubatch``.
        NoSlotError, AbortedError, DecodeError, BufferError
            As for `Context.decode`.
        LibraryError
            If libllama cannot encode a chunk.

        Notes
        -----
        After an error the memory is as before; a recurrent one, which cannot be cut, has lost the
        sequence. Where the model wants an image without a causal mask, that is switched off for
        the image.

        Calls: llama_decode, mtmd_encode_chunk, mtmd_decode_use_non_causal
        """
        return decode_chunks(self, context, chunks, pos=pos, seq=seq, output=output)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"for {self.model!r}"
        return f"<Projector {os.path.basename(self.path)!r}: {state}>"  # noqa: PTH119 - a name only

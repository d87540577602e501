"""Encrypts provider keys at rest with a key derived from `encryption_key`; without one, says that nothing is encrypted."""

import base64
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from store.errors import UserError

SALT_BYTES = 16
SEALED_PREFIX = "sealed:"
"""Before cipher text in columns that may hold clear text as well."""
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 1
_CHECK = b"tollgate"

WRONG_KEY = "encryption_key is not the key that this store was encrypted with; set it to that one"
NO_KEY = "the store is encrypted; set encryption_key in config.json to the key it was made with"


class Vault:
    """Seals and opens secrets. The first passphrase seals; every one of them opens, so that a key can be changed."""

    def __init__(self, passphrases: Sequence[str] = (), salt: bytes = b"") -> None:
        self._fernet = MultiFernet([Fernet(_derive(text, salt)) for text in passphrases]) if passphrases else None

    @property
    def is_sealing(self) -> bool:
        """True with an `encryption_key`: virtual keys are then kept as hashes only, provider keys encrypted."""
        return self._fernet is not None

    def seal(self, secret: str) -> str:
        """Cipher text for the store (the secret itself when nothing is encrypted)."""
        return secret if self._fernet is None else self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """The secret in clear. Raises UserError when it was sealed with another key."""
        if self._fernet is None:
            raise UserError(NO_KEY)
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise UserError(WRONG_KEY) from None

    def seal_marked(self, text: str) -> str:
        """As `seal`, marked as cipher text; what is marked already stays as it is."""
        if self._fernet is None or text.startswith(SEALED_PREFIX):
            return text
        return SEALED_PREFIX + self.seal(text)

    def open_marked(self, text: str) -> str:
        """What `seal_marked` was given. Raises UserError as `open`."""
        return self.open(text.removeprefix(SEALED_PREFIX)) if text.startswith(SEALED_PREFIX) else text

    def check_token(self) -> str:
        """A sealed word that tells later whether a key is the right one."""
        return self.seal(_CHECK.decode())

    def __repr__(self) -> str:
        return f"Vault(is_sealing={self.is_sealing})"


def _derive(passphrase: str, salt: bytes) -> bytes:
    raw = Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase.encode())
    return base64.urlsafe_b64encode(raw)

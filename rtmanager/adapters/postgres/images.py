"""Stores the images that the manager pulled, by daemon, and since when nothing names them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.queries import SQL
from rtmanager.ports.streams import PulledImage


class PostgresImages:
    """`PulledImages`. Raises `Unavailable` while PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pulled(self, daemon: str, image: PulledImage) -> None:
        """See the port."""
        values = {"daemon": daemon, "image_ref": image.image_ref, "image_id": image.image_id}
        self._database.write("images", SQL["note_pulled_image"], values)

    def named(self) -> Collection[str]:
        """See the port."""
        return {row["image_ref"] for row in self._database.read("images", SQL["named_images"], {})}

    def remembered(self, daemon: str) -> Sequence[str]:
        """See the port."""
        return [row["image_ref"] for row in self._database.read("images", SQL["pulled_images"], {"daemon": daemon})]

    def unnamed(self, daemon: str, named: Collection[str], keep_s: float) -> Sequence[PulledImage]:
        """See the port."""
        values = {"daemon": daemon, "named": list(named), "keep_s": keep_s}
        with self._database.transaction("images") as connection:
            connection.execute(SQL["mark_unnamed_images"], values)
            rows = connection.execute(SQL["unnamed_images"], values).fetchall()
        return [PulledImage(row["image_ref"], row["image_id"]) for row in rows]

    def forget(self, daemon: str, image_ref: str) -> None:
        """See the port."""
        values = {"daemon": daemon, "image_ref": image_ref}
        self._database.write("images", SQL["forget_pulled_image"], values)

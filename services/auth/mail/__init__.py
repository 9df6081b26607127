"""Where mails go: to an SMTP server, or into a folder."""

from __future__ import annotations

from libs.common.settings import Stage
from services.auth.mail.folder import FolderMailer
from services.auth.ports import Mailer
from services.auth.settings import AuthSettings


def configured_mailer(settings: AuthSettings) -> Mailer | None:
    """SMTP_URL wins, then MAIL_FOLDER; None when the operator has set up neither. Raises ValueError: bad settings."""
    if settings.smtp_url is not None:
        # Imported late: most installations send no mails.
        from services.auth.mail.smtp import SmtpMailer  # noqa: PLC0415
        from services.auth.mail.smtp_url import SmtpServer  # noqa: PLC0415

        return SmtpMailer(SmtpServer.of(settings.smtp_url.get_secret_value()), settings.mail_from)
    if settings.mail_folder is not None:
        in_development = settings.environment is Stage.DEVELOPMENT
        return FolderMailer(settings.mail_folder, settings.mail_from, log_links=in_development)
    return None

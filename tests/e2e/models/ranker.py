"""A light model over stored embeddings: the dot product of a user's and an item's."""


class Ranker:
    def initialize(self, context):
        pass

    def handle(self, rows, context):
        return [self.score(row.get("body") or row.get("data")) for row in rows]

    def score(self, body):
        pairs = zip(body["user"]["embedding"], body["item"]["embedding"], strict=True)
        return {"score": sum(a * b for a, b in pairs), "age": body["user"]["age"]}
